"""Which errors are a person's to mend: these are said in one line, the others keep their traceback."""

import importlib
from collections.abc import Iterator

_MENDABLE = {
    "city.contracts.model": ("ContractError",),
    "city.lake.tables": ("ForeignTable",),
    "city.questdb": ("QuestDBError",),
    "city.serving.dashboard": ("CannotBuild",),
    "city.stack.jars": ("JarError",),
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
    if isinstance(error, FileNotFoundError | ValueError) or type(error) is RuntimeError:
        return str(error)
    for name, kind in mendable():
        if isinstance(error, kind):
            return f"{name}: {error}" if name in ("Fenced", "KafkaException") else str(error)
    return None


def mendable() -> Iterator[tuple[str, type[Exception]]]:
    for module, names in _MENDABLE.items():
        for name in names:
            yield name, getattr(importlib.import_module(module), name)
