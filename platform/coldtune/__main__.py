"""`python -m coldtune` is `coldtune`."""

from coldtune.cli import main

main()
