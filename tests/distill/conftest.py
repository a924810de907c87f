"""The real MLflow server, for the tests of tracking."""

from tests.mlflow_server import mlflow_server

__all__ = ["mlflow_server"]
