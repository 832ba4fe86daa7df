"""What the embedded servers are prepared with."""

import uuid

import pytest

from city.java import jars
from city.settings import Settings
from city.stack import servers


def test_a_storage_whose_id_begins_with_a_dash_is_formatted(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one id in sixty-four does."""
    monkeypatch.setattr(servers.uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xfb" * 16))
    jars.fetch(config, jars.missing(config, ["kafka"]))
    prepare = servers.kafka(config).prepare
    assert prepare is not None
    prepare()
    (meta,) = config.home.rglob("meta.properties")
    assert "cluster.id=-" in meta.read_text()
