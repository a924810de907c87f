"""What MLflow runs to open a registered proxy ("models from code"). Copied into every version."""

from mlflow.models import set_model

from cascade.registry.mlflow_model import ProxyModel

set_model(ProxyModel())
