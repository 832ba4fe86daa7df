"""Makes a model's inputs from what a request gives: features, an entity, or an event as it happens."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import polars as pl

from city.features.online import online_store
from city.features.reader import FeatureReader, is_unknown
from city.models.model import Model
from city.serving.batching import Rows
from city.serving.inputs import Inputs, PredictionRequest, Value
from city.serving.raw_events import Event, RawEvents
from city.settings import Settings
from city.tables.model import TableError
from city.web.problems import Problem


class Asked(NamedTuple):
    """A request as a model's inputs (1, inputs)."""

    row: Rows
    entity: str | None = None
    """Whom it is about, as JSON; None where the request does not say."""
    features: dict[str, Any] | None = None
    """The features that the server found; None where the request gives them."""
    category: str | None = None
    """The value of the model's `threshold_by`; None where it is not known."""


class RequestRows:
    """Makes inputs of requests. It is used from the event loop."""

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self.inputs = {name: Inputs(model) for model in models.values() for name in (model.name, *model.aliases)}
        """The inputs of each model, by its name and its aliases."""
        self._online = online_store(config)
        self._remote = config.redis_url is not None
        self._readers: dict[str, FeatureReader] = {}
        self._events = {model.name: RawEvents(model, config) for model in models.values() if model.event is not None}

    async def read(self, model: Model, request: PredictionRequest) -> Asked:
        """Makes the inputs of a request. Raises Problem for an invalid one, and for an entity that is unknown."""
        inputs = self.inputs[model.name]
        if (request.features is None) == (request.entity is None):
            raise Problem(422, "give either features or an entity", [("features", "or entity: exactly one of the two")])
        if request.entity is not None:
            features = await self._read_features(model, request.entity)
            entity = orjson.dumps(request.entity, option=orjson.OPT_SORT_KEYS).decode()
            row = inputs.row({name: features[name] for name in model.inputs}, "entity")
            return Asked(row, entity, features, _category_of(model, features))
        assert request.features is not None
        if not inputs.is_event(request.features):
            return Asked(inputs.row(request.features))
        event: Any = request.features
        found, row = await asyncio.to_thread(self._events[model.name].features, [event], ["features"])
        features = found.row(0, named=True)
        return Asked(row, self._entity_of(model, event), features, _category_of(model, features))

    async def rows_of_events(self, model: Model, events: Sequence[Event]) -> tuple[pl.DataFrame, Rows]:
        """Makes the columns that answers to a batch of events need, and the inputs (n, inputs). Raises Problem that
        names each wrong field."""
        paths = [f"instances.{number}" for number in range(len(events))]
        return await asyncio.to_thread(self._events[model.name].features, events, paths)

    def _entity_of(self, model: Model, event: Mapping[str, Value]) -> str | None:
        assert model.event is not None
        key = event.get(model.event.contract.key)
        return None if key is None else orjson.dumps({model.view.entities[0]: key}).decode()

    async def _read_features(self, model: Model, entity: Mapping[str, str | int]) -> dict[str, Any]:
        """Reads an entity's features from the online store. Raises Problem for an unknown entity."""
        reader = self._readers.get(model.name)
        if reader is None:
            reader = self._readers[model.name] = FeatureReader(self._online, model.online)
        try:
            # A file's cached page is read in less time than a thread takes to wake.
            (features,) = await asyncio.to_thread(reader.read, [entity]) if self._remote else reader.read([entity])
        except TableError as error:
            raise Problem(422, str(error), [("entity", str(error))]) from None
        if is_unknown(features):
            keys = ", ".join(f"{name}={value}" for name, value in entity.items())[:200]
            raise Problem(
                404, f"nothing is known of {keys} in {model.features} now: it is unknown, or its features are too old"
            )
        return features


def _category_of(model: Model, features: Mapping[str, Any]) -> str | None:
    value = features.get(model.threshold_by)
    return None if value is None else str(value)
