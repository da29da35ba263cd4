"""Speed, side by side with others on the same machine: `python -m benchmarks.run`; see README.md beside this file."""
