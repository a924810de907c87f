"""``cascade demo``: the whole way from a recipe to a measured gateway, on real models."""

from cascade.demo.run import run

__all__ = ["run"]
