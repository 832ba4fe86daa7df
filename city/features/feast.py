"""Feast's plug-ins for our lake: features from Delta, joined as of a time by Polars; and our online store.

Feast's own way to read Delta fetches a DuckDB extension at run time, and its SQLite store keeps a row a feature. Feast
is made to be extended at just these places (docs.feast.dev, "Adding a new offline store", "… online store").
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import get_feature_view_query_context
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from city.features.online import online_store
from city.features.views import SEPARATOR
from city.settings import settings

EVENT_TIMESTAMP = "event_timestamp"
_KINDS = {
    pl.String: ValueType.STRING,
    pl.Float64: ValueType.DOUBLE,
    pl.Int64: ValueType.INT64,
    pl.Boolean: ValueType.BOOL,
}


class DeltaSource(DataSource):
    """A table of the lake, by its `layer/name`."""

    def __init__(self, *, name: str, table: str, timestamp_field: str, description: str = "") -> None:
        super().__init__(name=name, timestamp_field=timestamp_field, description=description)
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeltaSource) and super().__eq__(other) and self.table == other.table

    __hash__ = DataSource.__hash__

    @property
    def path(self) -> Path:
        return settings().lake / self.table

    def scan(self) -> pl.LazyFrame:
        return pl.scan_delta(str(self.path))

    def source_type(self) -> Any:
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: Any) -> "DeltaSource":
        options = orjson.loads(data_source.custom_options.configuration)
        return DeltaSource(
            name=data_source.name,
            table=options["table"],
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
        )

    def _to_proto_impl(self) -> Any:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type="city.features.feast.DeltaSource",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=orjson.dumps({"table": self.table})),
            timestamp_field=self.timestamp_field,
            description=self.description,
        )

    def validate(self, config: RepoConfig) -> None: ...

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        return [(name, str(kind)) for name, kind in self.scan().collect_schema().items()]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        known = {str(kind()): value for kind, value in _KINDS.items()}
        return lambda kind: known.get(kind, ValueType.UNIX_TIMESTAMP)

    def get_table_query_string(self) -> str:
        return self.table


class DeltaJob(RetrievalJob):
    """A lazy frame, collected when it is asked for."""

    def __init__(
        self,
        frame: pl.LazyFrame,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self.frame = frame
        self._full, self._on_demand, self._metadata = full_feature_names, list(on_demand), metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self.frame.collect().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.frame.collect().to_arrow()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        raise NotImplementedError("save what to_arrow gives where you want it")


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    type: Literal["city.features.feast.DeltaOfflineStore"] = "city.features.feast.DeltaOfflineStore"


class DeltaOfflineStore(OfflineStore):
    """Point-in-time joins of feature tables on the lake."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError(f"entity_df is a pandas frame with the entities and {EVENT_TIMESTAMP!r}")
        if EVENT_TIMESTAMP not in entity_df.columns:
            raise ValueError(f"entity_df has no column {EVENT_TIMESTAMP!r}; it has {list(entity_df.columns)}")
        asked = pl.from_pandas(entity_df).with_row_index("_row")
        asked = asked.with_columns(utc(pl.col(EVENT_TIMESTAMP), asked.schema[EVENT_TIMESTAMP]))
        found = asked.lazy()
        edges: Any = (asked[EVENT_TIMESTAMP].min(), asked[EVENT_TIMESTAMP].max())
        contexts = get_feature_view_query_context(feature_refs, feature_views, registry, project, edges)
        by_name = {view.projection.name_to_use(): view for view in feature_views}
        for context in contexts:
            view = by_name[context.name]
            source = view.batch_source
            assert isinstance(source, DeltaSource)
            names = {
                feature: f"{context.name}__{feature}" if full_feature_names else feature for feature in context.features
            }
            found = as_of(found, source.scan(), list(view.join_keys), context.timestamp_field, names, view.ttl)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in entity_df.columns if name != EVENT_TIMESTAMP],
            min_event_timestamp=edges[0],
            max_event_timestamp=edges[1],
        )
        return DeltaJob(found.sort("_row").drop("_row"), full_feature_names, on_demand, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        rows = _between(data_source, timestamp_field, start_date, end_date)
        rows = rows.select(*join_key_columns, *feature_name_columns, timestamp_field)
        if not join_key_columns:
            newest = rows.sort(timestamp_field).tail(1)
            return DeltaJob(newest.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID)))
        return DeltaJob(rows.sort(timestamp_field).unique(join_key_columns, keep="last"))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        rows = _between(data_source, timestamp_field, start_date, end_date)
        return DeltaJob(rows.select(*join_key_columns, *feature_name_columns, timestamp_field))


def as_of(
    asked: pl.LazyFrame,
    features: pl.LazyFrame,
    keys: list[str],
    time: str,
    names: dict[str, str],
    ttl: Any,
) -> pl.LazyFrame:
    """Each asked row with the newest features of its entity that were known at its time, and not older than `ttl`.

    Features of the very moment count as known. Neither later ones, nor those of another entity, ever do.
    """
    right = features.select(*keys, _known=utc(pl.col(time)), **{new: pl.col(old) for old, new in names.items()})
    return (
        asked.sort(EVENT_TIMESTAMP)
        .join_asof(
            right.sort("_known"),
            left_on=EVENT_TIMESTAMP,
            right_on="_known",
            by=keys,
            strategy="backward",
            tolerance=ttl if ttl else None,
            check_sortedness=False,
        )
        .drop("_known", strict=False)
    )


def utc(time: pl.Expr, kind: pl.DataType | None = None) -> pl.Expr:
    """In UTC and microseconds; a time without a zone is taken to be in UTC."""
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        time = time.dt.replace_time_zone("UTC")
    return time.dt.convert_time_zone("UTC").dt.cast_time_unit("us")


class CityOnlineStoreConfig(FeastConfigBaseModel):
    type: Literal["city.features.feast.CityOnlineStore"] = "city.features.feast.CityOnlineStore"


class CityOnlineStore(OnlineStore):
    """Our store (see online) to Feast's clients."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        newest: dict[str, tuple[int, bytes]] = {}
        for entity, values, time, _ in data:
            at = int(_aware(time).timestamp() * 1e6)
            row = {name: _plain(feast_value_type_to_python_type(value)) for name, value in values.items()}
            key = _key(entity, table)
            if key not in newest or newest[key][0] <= at:
                newest[key] = (at, orjson.dumps(row))
        moments, rows = [at for at, _ in newest.values()], [row for _, row in newest.values()]
        online_store(settings()).write(table.name, list(newest), moments, rows)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        kinds = {f.name: f.dtype.to_value_type() for f in table.features}
        wanted = requested_features or list(kinds)
        found: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for row in online_store(settings()).read(table.name, [_key(entity, table) for entity in entity_keys]):
            if row is None:
                found.append((None, None))
                continue
            values = {n: _proto(row.features.get(n), kinds[n]) for n in wanted}
            found.append((datetime.fromtimestamp(row.at / 1e6, UTC), values))
        return found

    def update(self, config: RepoConfig, *arguments: Any, **more: Any) -> None: ...
    def teardown(self, config: RepoConfig, *arguments: Any, **more: Any) -> None: ...


def _key(entity: EntityKey, table: FeatureView) -> str:
    values = dict(zip(entity.join_keys, map(feast_value_type_to_python_type, entity.entity_values), strict=True))
    return SEPARATOR.join(str(values[name]) for name in table.join_keys)


def _plain(value: Any) -> Any:
    return int(_aware(value).timestamp() * 1e6) if isinstance(value, datetime) else value


def _proto(value: Any, kind: ValueType) -> Value:
    if value is not None and kind == ValueType.UNIX_TIMESTAMP:
        value = datetime.fromtimestamp(value / 1e6, UTC)
    return python_values_to_proto_values([value], kind)[0]


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _between(source: DataSource, time: str, first: datetime | None, last: datetime | None) -> pl.LazyFrame:
    assert isinstance(source, DeltaSource)
    rows = source.scan()
    if first:
        rows = rows.filter(pl.col(time) >= _aware(first))
    return rows.filter(pl.col(time) <= _aware(last)) if last else rows
