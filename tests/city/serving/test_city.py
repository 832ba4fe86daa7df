"""What the server holds once for all that it does."""

from typing import Any

import pytest
import requests

from city.alerts.desk import Desk
from city.settings import Settings
from tests.city.serving.served import serving
from tests.live import until


def test_the_store_of_alarms_is_opened_once(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    init = Desk.__init__

    def counted(desk: Desk, url: str, *rest: Any) -> None:
        opened.append(url)
        init(desk, url, *rest)

    monkeypatch.setattr(Desk, "__init__", counted)
    with serving(config) as url:
        for lease in ("watch", "reader"):
            until((config.home / "alerts" / f".alerts.db.{lease}.lock").exists)
        assert requests.get(f"{url}/api/alarms", timeout=10).ok
        assert requests.get(f"{url}/metrics", timeout=10).ok
    assert len(opened) == 1
