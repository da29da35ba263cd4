"""The command `ludus`: each subcommand is one module that only parses, calls a program and prints."""
