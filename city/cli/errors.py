"""Which errors are a person's to mend: these are said in one line, the others keep their traceback."""

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
    "city.stack.supervisor": ("CannotStart",),
    "city.streaming.bronze": ("Fenced",),
    "city.streaming.source": ("TopicReset",),
    "confluent_kafka": ("KafkaException",),
    "deltalake.exceptions": ("TableNotFoundError",),
    "pydantic": ("ValidationError",),
    "requests": ("RequestException",),
}


def explain(error: Exception) -> str | None:
    """What to tell the person, or None for a fault of the program."""
    if settings := _of_settings(error):
        return settings
    if isinstance(error, FileNotFoundError | ValueError) or type(error) is RuntimeError:
        return str(error)
    for name, kind in mendable():
        if isinstance(error, kind):
            return f"{name}: {error}" if name in ("Fenced", "KafkaException") else str(error)
    return None


def _of_settings(error: Exception) -> str | None:
    """Each setting that is wrong, by the name that a person gave it; without its value, which may be a secret."""
    if isinstance(error, SettingsError):
        name = re.search(r'field "(\w+)"', str(error))
        return f'CITY_{name[1].upper()}: a JSON list is expected, such as ["one", "two"]' if name else str(error)
    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    return "; ".join(
        f"CITY_{str(one['loc'][0]).upper()}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
    )


def mendable() -> Iterator[tuple[str, type[Exception]]]:
    for module, names in _MENDABLE.items():
        for name in names:
            yield name, getattr(importlib.import_module(module), name)
