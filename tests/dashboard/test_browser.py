"""The dashboard as a person uses it: a real browser, a real server, the stream and its data behind it."""

import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from confluent_kafka import Producer
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from benchmarks.serve import serving
from city import questdb
from city.alerts.model import Finding
from city.alerts.store import AlertStore, alert_store
from city.models.registry import Registry
from city.settings import CHECKOUT, Settings
from city.stack.embedded import free_ports
from city.stack.part import Part
from city.streaming.topics import ensure_topics
from city.web import pages as dashboard
from city.web.keys import Keys
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.models import speed_model
from simulators.clock import iso
from simulators.traffic import Traffic
from simulators.world.local import LocalClock
from tests.city.serving.served import registered, taught
from tests.dashboard.conftest import open_page
from tests.live import streaming, until

SERVE = [sys.executable, "-m", "city.cli.main", "serve"]
VEHICLES, PAST_SECONDS = 150, 600
MONDAY_AFTERNOON = datetime(2026, 5, 4, 15, tzinfo=UTC).timestamp()
PICTURES = CHECKOUT / "docs"


@dataclass
class Town:
    config: Settings
    url: str
    server: ExitStack
    store: AlertStore
    serves: bool = False

    def start(self) -> None:
        if not self.serves:
            self.server.enter_context(serving(self.config, SERVE))
            self.serves = True

    def stop(self) -> None:
        self.serves = False
        self.server.close()


@pytest.fixture
def town(lasting: Town) -> Town:
    """The town, with its server up."""
    lasting.start()
    return lasting


@pytest.fixture(scope="module")
def lasting(stack_parts: tuple[Settings, dict[str, Part]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Ten minutes of traffic that were, and traffic that goes on; one champion, which says how fast it will be."""
    dashboard.build()
    shared, _ = stack_parts
    addresses = {
        "kafka_address": str(shared.kafka),
        "questdb_address": str(shared.questdb),
        "mqtt_address": str(shared.mqtt),
    }
    home = {"home": tmp_path_factory.mktemp("town"), "serve_port": free_ports(1)[0]}
    config = shared.model_copy(update=addresses | home)
    registered(Registry(config), speed_model(15), taught(speed_model(15)))
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    over, fleet = threading.Event(), Traffic(3, LocalClock(), 4 * VEHICLES)
    producer = Producer({"bootstrap.servers": str(config.kafka)})
    now = time.time()
    for second in range(0, PAST_SECONDS, 4):
        report(producer, fleet, now - PAST_SECONDS + second)
    producer.flush(20)

    def drive() -> None:
        while not over.wait(1.0):
            report(producer, fleet, time.time())

    driving = threading.Thread(target=drive)
    alarms = alert_store(config)
    alarms.sync_findings([Finding("test/bridge", "error", "the bridge does not answer", "traffic")], "test/")
    with streaming(VEHICLE_POSITIONS, config), ExitStack() as server:
        driving.start()
        try:
            past = f"timestamp < {int(now * 1e6)}"
            there = f"SELECT count() FROM vehicle_positions WHERE {past}"
            until(lambda: questdb.rows(config.questdb, there)[0][0] > VEHICLES * PAST_SECONDS / 5, 60)
            yield Town(config, f"http://127.0.0.1:{config.serve_port}", server, alarms)
        finally:
            over.set()
            driving.join()
            producer.flush(5)


def report(producer: Producer, fleet: Traffic, at: float) -> None:
    """The traffic of a Monday's afternoon, whenever the test runs."""
    import orjson

    began = fleet.__dict__.setdefault("began", at)
    vehicles, _, positions = fleet.reports(MONDAY_AFTERNOON + at - began, VEHICLES)
    rows = zip(
        vehicles.tolist(),
        positions.latitude.tolist(),
        positions.longitude.tolist(),
        positions.speed.tolist(),
        strict=True,
    )
    for vehicle, latitude, longitude, speed in rows:
        moment = iso(datetime.fromtimestamp(at, UTC))
        content = {"vehicle_id": f"vehicle_{vehicle:05d}", "timestamp": moment, "latitude": latitude}
        content |= {"longitude": longitude, "speed": min(speed, 120.0)}
        producer.produce(VEHICLE_POSITIONS.topic, orjson.dumps(content), content["vehicle_id"])
    producer.poll(0)


def places(page: Page) -> dict[str, tuple[float, float]]:
    state: dict[str, Any] = page.evaluate(
        "() => Object.fromEntries(window.city.vehicles().map((id) => [id, window.city.where(id)]))"
    )
    return {name: (place[0], place[1]) for name, place in state.items()}


def gone_elsewhere(before: dict[str, tuple[float, float]], now: dict[str, tuple[float, float]]) -> bool:
    """Whether there are vehicles, and of those that there were nearly all are somewhere else."""
    both = before.keys() & now.keys()
    moved = sum(before[name] != now[name] for name in both)
    return len(now) > 50 and (not before or (len(both) > 50 and moved > 0.9 * len(both)))


def is_later(clock: str, than: str) -> bool:
    """Of two times of day less than half a day apart, with midnight perhaps between them."""
    hours, minutes, seconds = (int(a) - int(b) for a, b in zip(clock.split(":"), than.split(":"), strict=True))
    return 0 < (hours * 3600 + minutes * 60 + seconds) % 86_400 < 43_200


def colours(page: Page) -> int:
    """How many different colours the map has, of eight levels a channel."""
    picture = Image.open(io.BytesIO(page.locator(".map").screenshot()))
    pixels = np.asarray(picture.convert("RGB")) // 32
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def shown(page: Page) -> int:
    """How many cells have a level, by the legend."""
    return sum(map(int, re.findall(r": (\d+) cells", page.locator(".legend").inner_text())))


def barriers(page: Page) -> list[str]:
    """What keeps people out, by axe's rules for WCAG 2.2 A and AA: names, roles, contrast, order, targets."""
    report = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    return [
        f"{page.url}: {violation['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for violation in report.response["violations"]
        for node in violation["nodes"]
    ]


PAGES = ("", "map", "operations", "analytics", "today", "api")


@pytest.mark.integration
def test_a_person_looks_plays_back_acknowledges_and_is_told_of_a_lost_connection(town: Town, browser: Browser) -> None:
    page = open_page(browser, viewport={"width": 1100, "height": 640})  # drawn by the processor, pixel by pixel
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    page.goto(town.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("The city, as it is now")
    expect(page.locator(".figures")).to_contain_text("vehicles")
    page.get_by_role("link", name="Open the dashboard").click()

    # The map draws, and vehicles move.
    page.wait_for_function("() => window.city && window.city.vehicles().length > 100 && window.city.frames() > 3")
    expect(page.get_by_role("status").first).to_have_text("live")
    expect(page.locator(".legend")).not_to_contain_text("free: 0 cells")
    assert colours(page) > 12
    before = places(page)
    page.wait_for_timeout(4_000)
    after = places(page)
    moved = [name for name in before if name in after and before[name] != after[name]]
    assert len(moved) > 50
    jumps = [np.hypot(*np.subtract(before[name], after[name])) for name in moved]
    assert np.median(jumps) < 0.01  # a kilometre; some tens of metres are driven in that time
    page.screenshot(path=town.config.home / "map.png")

    # Ahead, by the champion, from features that the stream has made of the same vehicles; and where there is none.
    ahead = page.get_by_role("group", name="Time shown")
    ahead.get_by_role("button", name="+15 min").click()
    until(lambda: shown(page) > 10)
    ahead.get_by_role("button", name="+5 min").click()
    expect(page.locator(".panel")).to_contain_text("No model predicts the traffic in 5 minutes yet")
    assert shown(page) == 0
    ahead.get_by_role("button", name="Now").click()

    # Playback is scrubbed, and gone back from.
    page.get_by_role("button", name="Last hour").click()
    expect(page.locator(".map")).to_have_attribute("data-mode", "history", timeout=20_000)
    # Its vehicles move, whatever is reported live meanwhile.
    until(lambda: len(places(page)) > 50)
    begun = places(page)
    until(lambda: gone_elsewhere(begun, places(page)))
    clock = page.locator(".playback output")
    slider = page.get_by_role("slider", name="Time")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()  # the clock stands still from here
    start, end = (int(slider.get_attribute(name) or 0) for name in ("min", "max"))
    at = {}
    for minutes in (5, 3):
        before = places(page) if at else {}  # before the seek: positions that are known already move at once
        paused_at = clock.inner_text()
        slider.evaluate(
            "(node, v) => { node.value = v; node.dispatchEvent(new Event('input', {bubbles: true})) }",
            end - minutes * 60_000,
        )
        # The page draws the seek a moment later, and the places before it may be those of the seek before.
        until(lambda paused_at=paused_at: clock.inner_text() != paused_at)
        until(lambda before=before: gone_elsewhere(before, places(page)))  # fetched as they are needed
        at[minutes] = clock.inner_text()
    assert end - start == 3_600_000
    assert is_later(at[3], at[5])
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("combobox", name="Speed").select_option("60")
    until(lambda: is_later(clock.inner_text(), at[3]))
    page.get_by_role("button", name="Back to live").click()
    expect(page.locator(".map")).to_have_attribute("data-mode", "live")

    # An alarm is assigned and acknowledged, by keyboard.
    page.get_by_role("link", name="Operations").click()
    alarm = page.get_by_role("row", name="the bridge does not answer")
    expect(alarm).to_contain_text("unacknowledged")
    alarm.get_by_role("button", name="assign").press("Enter")
    alarm.get_by_role("textbox").fill("Ada")
    alarm.get_by_role("textbox").press("Enter")
    expect(alarm).to_contain_text("Ada")
    alarm.get_by_role("button", name="Acknowledge").press("Enter")
    expect(alarm).to_contain_text("active, acknowledged")
    assert town.store.alarms()[0].acknowledged
    assert town.store.alarms()[0].assignee == "Ada"
    expect(page.get_by_role("row", name="traffic_congestion")).to_contain_text("none yet")

    # A lost connection is said, and comes back by itself.
    page.get_by_role("link", name="Map", exact=True).click()
    page.wait_for_function("() => window.city && window.city.vehicles().length > 100")
    town.stop()
    expect(page.get_by_role("status").first).to_have_text("no connection", timeout=15_000)
    town.start()
    expect(page.get_by_role("status").first).to_have_text("live", timeout=30_000)
    frames = page.evaluate("window.city.frames()")
    page.wait_for_function(f"() => window.city.frames() > {frames} && window.city.vehicles().length > 100")

    page.get_by_role("link", name="Analytics").click()
    expect(page.locator("figure").first).to_contain_text("Mean speed: from")
    page.get_by_role("link", name="Today").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The city today")
    for page_name in PAGES:
        page.goto(f"{town.url}/#/{page_name}")
        page.wait_for_timeout(800)
        assert barriers(page) == []
    assert faults == []
    page.close()


@pytest.mark.integration
def test_it_fits_a_phone_is_named_for_readers_and_shows_a_broken_backend(town: Town, browser: Browser) -> None:
    page = open_page(browser, viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(f"{town.url}/#/map")
    page.wait_for_function("() => window.city && window.city.vehicles().length > 50")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for page_name in PAGES:
        page.goto(f"{town.url}/#/{page_name}")
        page.wait_for_timeout(800)
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, page_name
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.goto(f"{town.url}/#/operations")
    town.stop()
    expect(page.get_by_role("alert").first).to_contain_text("The server does not answer", timeout=20_000)
    page.close()


def test_where_a_key_is_wanted_the_page_asks_for_it(stack: Settings, browser: Browser) -> None:
    dashboard.build()
    config = stack.model_copy(update={"serve_port": free_ports(1)[0], "auth": "on"})
    key = Keys(config).add("Ada", "operator")
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    with serving(config, SERVE) as port:
        page = open_page(browser)
        page.goto(f"http://127.0.0.1:{port}/#/operations")
        expect(page.get_by_role("heading", level=1)).to_have_text("An API key is required")
        page.get_by_label("Key").fill("city_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("An API key is required", timeout=10_000)
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("status").first).to_have_text("live", timeout=15_000)
        expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
        assert key not in page.content()
        page.close()
