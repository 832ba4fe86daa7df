"""The asset graph. Each domain has one folder, and nothing about a domain stands outside its folder."""
