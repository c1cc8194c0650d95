"""`python -m chaku` is `chaku`."""

from chaku.cli.main import main

main()
