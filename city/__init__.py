"""The engine under the city's asset graph: contracts, streaming, stack and command line. It knows no domain."""
