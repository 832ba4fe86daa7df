"""Decides which errors the user can fix. The command prints these in one line and the others with their traceback."""

import importlib
import re
from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_settings import SettingsError

_MENDABLE = {
    "city.contracts.model": ("ContractError",),
    "city.lake.tables": ("ForeignTable",),
    "city.questdb": ("QuestDBError",),
    "city.web.pages": ("CannotBuild",),
    "city.java.jars": ("JarError",),
    "city.stack.part": ("CannotStart",),
    "city.streaming.table_writer": ("Fenced",),
    "city.streaming.source": ("TopicReset",),
    "city.streaming.topics": ("MissingTopics",),
    "confluent_kafka": ("KafkaException",),
    "deltalake.exceptions": ("TableNotFoundError",),
    "pydantic": ("ValidationError",),
    "requests": ("RequestException",),
}


def explain(error: Exception) -> str | None:
    """Returns the text for the user, or None for a fault of the program."""
    if text := _explain_settings(error):
        return text
    if isinstance(error, FileNotFoundError | ValueError) or type(error) is RuntimeError:
        return str(error)
    for name, kind in mendable():
        if isinstance(error, kind):
            return f"{name}: {error}" if name in ("Fenced", "KafkaException") else str(error)
    return None


def _explain_settings(error: Exception) -> str | None:
    """Returns a text that names each wrong setting as the user writes it, or None for an error of another kind. The
    text has no values, because a value may be a secret."""
    if isinstance(error, SettingsError):
        name = re.search(r'field "(\w+)"', str(error))
        example = 'a JSON list or object is expected, such as ["one", "two"] or {"one": "two"}'
        return f"CITY_{name[1].upper()}: {example}" if name else str(error)
    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    texts = [(detail["loc"], detail["msg"].removeprefix("Value error, ")) for detail in error.errors()]
    return "; ".join(f"CITY_{str(place[0]).upper()}: {text}" if place else text for place, text in texts)


def mendable() -> Iterator[tuple[str, type[Exception]]]:
    """Yields the names and classes of the exceptions that the user can fix. Imports their modules."""
    for module, names in _MENDABLE.items():
        for name in names:
            yield name, getattr(importlib.import_module(module), name)
