"""The model registry."""

import dagster as dg

from city.models.registry import Registry
from city.settings import settings


class ModelRegistryResource(dg.ConfigurableResource):
    """MLflow: versions of models, with their champions."""

    def registry(self) -> Registry:
        """Where CITY_MLFLOW_URL says, or under CITY_HOME."""
        return Registry(settings())
