"""``python -m cascade``: the same as ``cascade``."""

from cascade.cli import main

main()
