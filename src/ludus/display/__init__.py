"""What people see of a program that runs, and of its results: on a terminal, in a log, in a notebook."""
