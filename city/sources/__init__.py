"""Sources: how messages of other people's shapes become events of a contract."""
