"""Declares the events that a request may contain in place of features."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from city.contracts.model import Contract

LOCAL = "_local"
"""The column with an event's local time (without a zone), from which `defaults` are computed."""


@dataclass(frozen=True, kw_only=True)
class RawEvent:
    """An event of `contract` as it happens, before it is in the stream.

    The server computes the model's features from it and from the earlier events of its key, as the stream does. Only
    the fields of `needed` are required. The event time is that of the request where it is missing, and `defaults`
    compute other fields from LOCAL. A field that is still null is unknown. An event without its key has no earlier
    events. `unused` are names that other systems send, and that no feature uses.
    """

    contract: Contract
    needed: tuple[str, ...]
    defaults: Mapping[str, pl.Expr] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
