"""The model registry resource."""

import dagster as dg

from city.models.registry import Registry
from city.settings import settings


class ModelRegistryResource(dg.ConfigurableResource):
    """The MLflow model registry, which has the versions of models and their champions."""

    def registry(self) -> Registry:
        """Opens the registry at CITY_MLFLOW_URL, by default under CITY_HOME."""
        return Registry(settings())
