"""`python -m udlbridge` is `udlbridge`."""

from udlbridge.cli import main

main()
