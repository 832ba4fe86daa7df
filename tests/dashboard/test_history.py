"""The dashboard of a city whose history is being made: in a real browser, with the answers of a server."""

import json
import mimetypes
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from city.stack.reports import HistoryStatus
from city.web import pages as dashboard
from tests.dashboard.conftest import open_page

# Of this machine, so that the browser treats the page as it does a real one. Nothing listens there.
URL = "http://127.0.0.1:9"
RUNNING = HistoryStatus(state="running", percent=62, step="table vehicle_speeds", days=14, error=None)


class Answers:
    """Answers the page's requests from the built files, and /api/stats with a history that tests change."""

    def __init__(self) -> None:
        self.history: HistoryStatus | None = RUNNING

    def fulfil(self, route: Route) -> None:
        path = urlsplit(route.request.url).path
        content = {"/api/config": self._config, "/api/stats": self._stats}.get(path)
        if content:
            route.fulfill(body=json.dumps(content()), content_type="application/json")
            return
        file = dashboard.DIST / (path.strip("/") or "index.html")
        if file.is_file():
            route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(file)[0] or "text/plain")
        else:
            route.fulfill(status=404, body="{}", content_type="application/problem+json")

    def _config(self) -> dict[str, Any]:
        return {"wants_key": False, "map_style": None, "timezone": "UTC", "layers": {}}

    def _stats(self) -> dict[str, Any]:
        counts = dict.fromkeys(("up_seconds", "events", "quarantined", "predictions", "models_serving", "clients"), 0)
        return (
            counts
            | {"at": 0.0, "events_per_second": None, "lag": None, "p95_ms": None, "live": {}}
            | {"history": self.history}
        )


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    dashboard.build()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def page(browser: Browser, answers: Answers) -> Iterator[Page]:
    opened = open_page(browser)
    opened.route("**/*", answers.fulfil)
    yield opened
    opened.close()


def test_the_bar_follows_the_history_and_vanishes_at_its_end(page: Page, answers: Answers) -> None:
    page.goto(URL)
    bar = page.locator(".history")
    expect(bar).to_have_text("Making 14 days of history: 62 %, table vehicle_speeds")
    assert Axe().run(page).violations_count == 0
    answers.history = {**RUNNING, "percent": 70, "state": "restarting", "error": "table vehicle_speeds: disk full"}
    expect(bar).to_contain_text("70 %. A step failed and is tried again. table vehicle_speeds: disk full")
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "70")
    answers.history = {**RUNNING, "percent": 100, "state": "done"}
    expect(bar).to_have_count(0)


def test_the_map_says_that_predictions_come_with_the_history(page: Page, answers: Answers) -> None:
    page.goto(f"{URL}/#/map")
    page.get_by_role("button", name="+15 min").click()
    explanation = page.locator(".panel .warn")
    expect(explanation).to_contain_text("Predictions come when it is made: 62 %.")
    answers.history = {**RUNNING, "percent": 63}
    expect(explanation).to_contain_text("63 %")
    answers.history = None
    expect(explanation).to_have_count(0)
