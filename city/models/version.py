"""A registered version of a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """A version as the registry records it. `created_ms` is in milliseconds since the epoch."""

    model: str
    number: int
    run: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created_ms: int

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the training, by name; none where they were not recorded."""
        values: dict[str, float] = json.loads(self.tags.get("metrics", "{}"))
        return values
