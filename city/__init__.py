"""The engine under the city's asset graph: contracts, streaming, stack and command line. It has no code of a domain."""
