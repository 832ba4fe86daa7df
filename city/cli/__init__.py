"""The `city` command: one short file a subcommand, no logic of its own."""
