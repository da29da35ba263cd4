"""`python -m ludus.cli` is the command `ludus`."""

from ludus.cli.main import main

main()
