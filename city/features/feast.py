"""Feast's plug-in for the lake: a data source and an offline store that read features from Delta.

The store joins features as of a time by Polars. Feast's own way to read Delta fetches a DuckDB extension at run time.
Feast is made to be extended at this place (docs.feast.dev, "Adding a new offline store").
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, cast

import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import get_feature_view_query_context
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from city.settings import settings

EVENT_TIMESTAMP = "event_timestamp"
_KINDS = {
    pl.String: ValueType.STRING,
    pl.Float64: ValueType.DOUBLE,
    pl.Int64: ValueType.INT64,
    pl.Boolean: ValueType.BOOL,
}


class DeltaSource(DataSource):
    """A table of the lake as a data source of Feast, by its `layer/name`."""

    def __init__(self, *, name: str, table: str, timestamp_field: str, description: str = "") -> None:
        super().__init__(name=name, timestamp_field=timestamp_field, description=description)
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeltaSource) and super().__eq__(other) and self.table == other.table

    __hash__ = DataSource.__hash__

    @property
    def path(self) -> Path:
        """The folder of the Delta table."""
        return settings().lake / self.table

    def scan(self) -> pl.LazyFrame:
        """Returns the table as a lazy frame."""
        return pl.scan_delta(str(self.path))

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Returns Feast's type for sources that are not its own."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "DeltaSource":
        """Creates the source from its entry in Feast's registry."""
        options = orjson.loads(data_source.custom_options.configuration)
        return DeltaSource(
            name=data_source.name,
            table=options["table"],
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type="city.features.feast.DeltaSource",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=orjson.dumps({"table": self.table})),
            timestamp_field=self.timestamp_field,
            description=self.description,
        )

    def validate(self, config: RepoConfig) -> None:
        """Does nothing: the name of the table is not checked."""

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Returns the name and the Polars type of each column."""
        return [(name, str(kind)) for name, kind in self.scan().collect_schema().items()]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Returns a function from a Polars type's name to Feast's type. Types that are not in `_KINDS` are times."""
        value_types = {str(kind()): value for kind, value in _KINDS.items()}
        return lambda kind: value_types.get(kind, ValueType.UNIX_TIMESTAMP)

    def get_table_query_string(self) -> str:
        """Returns the table's `layer/name`."""
        return self.table


class DeltaJob(RetrievalJob):
    """A retrieval job that collects a lazy frame when its result is requested."""

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
        """Whether the columns are named `view__feature`."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views that Feast applies to the frame."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """The features, keys and time range of the retrieval."""
        return self._metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self.frame.collect().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.frame.collect().to_arrow()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Raises NotImplementedError: the caller saves the frame."""
        raise NotImplementedError("save what to_arrow gives where you want it")


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """Selects DeltaOfflineStore in Feast's configuration."""

    type: Literal["city.features.feast.DeltaOfflineStore"] = "city.features.feast.DeltaOfflineStore"


class DeltaOfflineStore(OfflineStore):
    """Offline store of Feast: joins feature tables of the lake as of a point in time."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: object,
    ) -> RetrievalJob:
        """Joins each row of `entity_df` (entities and `event_timestamp`) with the features as of its time.

        Raises ValueError where `entity_df` is not a pandas frame, or has no column `event_timestamp`.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError(f"entity_df is a pandas frame with the entities and {EVENT_TIMESTAMP!r}")
        if EVENT_TIMESTAMP not in entity_df.columns:
            raise ValueError(f"entity_df has no column {EVENT_TIMESTAMP!r}; it has {list(entity_df.columns)}")
        entities = pl.from_pandas(entity_df).with_row_index("_row")
        entities = entities.with_columns(utc(pl.col(EVENT_TIMESTAMP), entities.schema[EVENT_TIMESTAMP]))
        joined = entities.lazy()
        time_range = cast(tuple[datetime, datetime], (entities[EVENT_TIMESTAMP].min(), entities[EVENT_TIMESTAMP].max()))
        contexts = get_feature_view_query_context(feature_refs, feature_views, registry, project, time_range)
        by_name = {view.projection.name_to_use(): view for view in feature_views}
        for context in contexts:
            view = by_name[context.name]
            source = view.batch_source
            assert isinstance(source, DeltaSource)
            names = {
                feature: f"{context.name}__{feature}" if full_feature_names else feature for feature in context.features
            }
            joined = as_of(joined, source.scan(), list(view.join_keys), context.timestamp_field, names, view.ttl)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in entity_df.columns if name != EVENT_TIMESTAMP],
            min_event_timestamp=time_range[0],
            max_event_timestamp=time_range[1],
        )
        return DeltaJob(joined.sort("_row").drop("_row"), full_feature_names, on_demand, metadata)

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
        """Reads the newest row of each entity between two times, both included."""
        rows = _scan_between(data_source, timestamp_field, start_date, end_date)
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
        """Reads all rows between two times, both included."""
        rows = _scan_between(data_source, timestamp_field, start_date, end_date)
        return DeltaJob(rows.select(*join_key_columns, *feature_name_columns, timestamp_field))


def as_of(
    entities: pl.LazyFrame,
    features: pl.LazyFrame,
    keys: list[str],
    time: str,
    names: dict[str, str],
    ttl: timedelta | None,
) -> pl.LazyFrame:
    """Joins each row of `entities` with the newest features of its entity that were known at its time.

    Features that are older than `ttl` are not joined. Features of exactly that time count as known. Later features, and
    those of another entity, are never joined. `names` maps a feature's column to its name in the result.
    """
    right = features.select(*keys, _known=utc(pl.col(time)), **{new: pl.col(old) for old, new in names.items()})
    return (
        entities.sort(EVENT_TIMESTAMP)
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
    """Converts a time to UTC and microseconds. A time without a zone is read as UTC."""
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        time = time.dt.replace_time_zone("UTC")
    return time.dt.convert_time_zone("UTC").dt.cast_time_unit("us")


def with_timezone(time: datetime) -> datetime:
    """Reads a time without a zone as UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _scan_between(source: DataSource, time: str, first: datetime | None, last: datetime | None) -> pl.LazyFrame:
    assert isinstance(source, DeltaSource)
    rows = source.scan()
    if first:
        rows = rows.filter(pl.col(time) >= with_timezone(first))
    return rows.filter(pl.col(time) <= with_timezone(last)) if last else rows
