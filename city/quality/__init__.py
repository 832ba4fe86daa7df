"""How good a dataset is: measured from its contract, judged by Great Expectations, scored a day at a time."""
