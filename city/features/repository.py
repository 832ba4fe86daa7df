"""Defines the feature store for Feast: its entities, views and services, derived from the declared tables."""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from city.features.on_demand import OnDemand, on_demand
from city.features.views import views
from city.settings import Settings
from city.tables.model import Column

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView, OnDemandFeatureView
    from feast.feast_object import FeastObject
    from feast.types import FeastType

PROJECT = "city"


def feature_store(config: Settings, online: dict[str, str] | None = None) -> "FeatureStore":
    """Opens Feast on City's lake and online store, and registers every declared view.

    `online` is Feast's configuration of another online store. Imports Feast, which takes seconds.
    """
    from feast import FeatureStore, RepoConfig

    folder = config.home / "features"
    folder.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online or {"type": "city.features.feast_online.CityOnlineStore"},
            offline_store={"type": "city.features.feast.DeltaOfflineStore"},
            entity_key_serialization_version=3,
        )
    )
    store.apply(objects())
    return store


def objects() -> list["FeastObject"]:
    """Returns what Feast registers: entities, views, and for each view a service of its name."""
    from feast import Entity, FeatureService, FeatureView, Field, ValueType

    from city.features.feast import DeltaSource

    declared = views()
    entities: dict[str, Entity] = {}
    for view in declared.values():
        for name in view.entities:
            description = view.table.column(name).description
            entities.setdefault(
                name, Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=description)
            )
    built = {
        name: FeatureView(
            name=name,
            entities=[entities[entity] for entity in view.entities],
            schema=[
                *(Field(name=entity, dtype=_feast_types()["string"]) for entity in view.entities),
                *(
                    Field(name=c.name, dtype=_feast_types()[c.kind], description=_description(c))
                    for c in view.features.values()
                ),
            ],
            source=DeltaSource(
                name=name, table=view.table.id, timestamp_field=view.time, description=view.table.description
            ),
            ttl=view.ttl,
            description=view.table.description,
            tags={"version": str(view.table.version), "table": view.table.id},
        )
        for name, view in declared.items()
    }
    computed = [_define_on_demand_view(view, built) for view in on_demand().values()]
    services = [FeatureService(name=name, features=[view], tags=dict(view.tags)) for name, view in built.items()]
    return [*entities.values(), *built.values(), *computed, *services]


def _define_on_demand_view(view: OnDemand, built: Mapping[str, "FeatureView"]) -> "OnDemandFeatureView":
    import pandas as pd
    from feast import Field, OnDemandFeatureView, RequestSource
    from feast.transformation.pandas_transformation import PandasTransformation

    def compute(frame: pd.DataFrame) -> pd.DataFrame:  # Feast reads these annotations
        import narwhals

        features = view.compute(narwhals.from_native(frame)).to_native()
        return features[[column.name for column in view.columns]]

    def fields(columns: Iterable[Column]) -> list[Field]:
        # Feast compares these fields with those that it infers, which have no description.
        return [Field(name=c.name, dtype=_feast_types()[c.kind]) for c in columns]

    sources = [
        built[name][[f.partition(":")[2] for f in view.needs if f.startswith(f"{name}:")]]
        for name in _source_views(view)
    ]
    return OnDemandFeatureView(
        name=view.name,
        sources=[*sources, RequestSource(name=f"{view.name}_request", schema=fields(view.request))],
        schema=fields(view.columns),
        feature_transformation=PandasTransformation(udf=compute, udf_string=view.description),
        mode="pandas",
        description=view.description,
    )


def _source_views(view: OnDemand) -> list[str]:
    return list(dict.fromkeys(need.partition(":")[0] for need in view.needs))


def materialize_views(config: Settings, since: timedelta, names: Collection[str] | None = None) -> dict[str, int]:
    """Writes the newest row of each entity to the online store. Returns the number of rows, by view.

    `since` is how far back the feature tables are read. `names` are those of the views, by default all.
    """
    from city.features.online import online_store, push
    from city.lake.snapshot import Snapshot

    store, snapshot = online_store(config), Snapshot(config.lake)
    written = {}
    for name, view in views().items():
        if (names is None or name in names) and snapshot.table(view.table.id) is not None:
            newest = snapshot.newest_of_each(view.table.id, view.entities, view.time, since)
            written[name] = push(store, view, newest) if newest is not None else 0
    return written


def _description(column: Column) -> str:
    return column.description + (f" [{column.unit}]" if column.unit else "")


def _feast_types() -> dict[str, "FeastType"]:
    from feast.types import Bool, Float64, Int64, String, UnixTimestamp

    return {"string": String, "float": Float64, "integer": Int64, "boolean": Bool, "timestamp": UnixTimestamp}
