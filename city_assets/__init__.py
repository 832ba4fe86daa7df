"""The asset graph: one folder a domain, and nothing about a domain outside its folder."""
