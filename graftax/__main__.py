"""`python -m graftax` is the command `graftax`."""

from .cli import main

main()
