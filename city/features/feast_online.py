"""Makes City's online store available to Feast's clients (docs.feast.dev, "Adding a new online store").

Feast's own SQLite store keeps one row per feature.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from feast import FeatureView, RepoConfig, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from city.features.feast import with_timezone
from city.features.online import online_store
from city.features.views import SEPARATOR
from city.settings import settings


class CityOnlineStoreConfig(FeastConfigBaseModel):
    """Selects CityOnlineStore in Feast's configuration."""

    type: Literal["city.features.feast_online.CityOnlineStore"] = "city.features.feast_online.CityOnlineStore"


class CityOnlineStore(OnlineStore):
    """Online store of Feast: makes City's store (see online) available to Feast's clients."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], object] | None,
    ) -> None:
        """Writes rows to the online store, the newest row of each entity."""
        newest: dict[str, tuple[int, bytes]] = {}
        for entity, values, time, _ in data:
            at = int(with_timezone(time).timestamp() * 1e6)
            row = {name: _to_json_value(feast_value_type_to_python_type(value)) for name, value in values.items()}
            key = _entity_key(entity, table)
            if key not in newest or newest[key][0] <= at:
                newest[key] = (at, orjson.dumps(row))
        times, rows = [at for at, _ in newest.values()], [row for _, row in newest.values()]
        online_store(settings()).write(table.name, list(newest), times, rows)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Reads the time and the features of each entity. Both are None for an unknown entity."""
        kinds = {f.name: f.dtype.to_value_type() for f in table.features}
        names = requested_features or list(kinds)
        results: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for row in online_store(settings()).read(table.name, [_entity_key(entity, table) for entity in entity_keys]):
            if row is None:
                results.append((None, None))
                continue
            values = {n: _to_proto_value(row.features.get(n), kinds[n]) for n in names}
            results.append((datetime.fromtimestamp(row.at / 1e6, UTC), values))
        return results

    def update(self, config: RepoConfig, *arguments: object, **more: object) -> None:
        """Does nothing: the store creates what a view needs when it is first written."""

    def teardown(self, config: RepoConfig, *arguments: object, **more: object) -> None:
        """Does nothing: the store keeps its rows."""


def _entity_key(entity: EntityKey, table: FeatureView) -> str:
    """Returns the key of an entity's row in City's store."""
    values = dict(zip(entity.join_keys, map(feast_value_type_to_python_type, entity.entity_values), strict=True))
    return SEPARATOR.join(str(values[name]) for name in table.join_keys)


def _to_json_value(value: object) -> object:
    """Converts a time to microseconds since the epoch. Other values stay as they are."""
    return int(with_timezone(value).timestamp() * 1e6) if isinstance(value, datetime) else value


def _to_proto_value(value: Any, kind: ValueType) -> Value:
    """Converts a stored value to Feast's protobuf value."""
    if value is not None and kind == ValueType.UNIX_TIMESTAMP:
        value = datetime.fromtimestamp(value / 1e6, UTC)
    return python_values_to_proto_values([value], kind)[0]
