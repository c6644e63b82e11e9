"""`python -m rookery` is `rookery`."""

from rookery.cli import main

main()
