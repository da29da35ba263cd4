"""`python -m ludus`, which is `ludus`."""

from ludus.cli.main import main

main()
