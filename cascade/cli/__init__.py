"""``cascade``: what people type."""

from cascade.cli.app import main

__all__ = ["main"]
