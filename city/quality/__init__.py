"""The quality of a dataset.

It is measured by the dataset's contract, judged by Great Expectations, and scored a day at a time.
"""
