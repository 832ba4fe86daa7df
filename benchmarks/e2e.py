"""From the creation of an event, through the stream that scores it, to a page in a browser: payments at a steady rate,
the champion's fraud probability of each, and a real Chromium that listens to the server's WebSocket."""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

from benchmarks._payments import START, lived
from benchmarks._stream import Stream
from benchmarks.serve import serving
from city.kafka import KafkaServer
from city.lake import quarantine_path, row_count
from city.models.registry import Registry
from city.models.train import train
from city.settings import Settings, settings
from city.stack.embedded import running, settings_at
from city.streaming.topics import ensure_topics
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS
from simulators.clock import iso
from simulators.payments import payloads
from simulators.world.payers import City

RATE, SECONDS, WARM_UP = 1_000, 60.0, 15.0
_CARDS = 20_000
_STAMP = b"2026-01-01T00:00:00.000000Z"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_PAGE = """() => {
  window.took = [];
  window.ids = [];
  const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/ws/stream?layers=scores`);
  socket.onmessage = (event) => {
    const now = Date.now();
    const message = JSON.parse(event.data);
    for (const row of message.layers.scores?.rows ?? []) {
      window.took.push([Date.parse(row.timestamp), now]);
      window.ids.push(row.id);
    }
  };
}"""


def run(tell: Callable[[str], None], rate: int = RATE, seconds: float = SECONDS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = settings_at(Path(folder), settings().cache_folder)
        tell("training the champion")
        rows, reports = lived(1)
        made = train(
            replace(FRAUDS, space=None), rows, Registry(config), data_version=1, now=START + timedelta(1), truth=reports
        )
        Registry(config).promote(made.version, "for the benchmark")
        with running(config, "kafka", "questdb"):
            ensure_topics(config.kafka, [PAYMENTS], [FRAUDS.stream.topic if FRAUDS.stream else ""])
            config.logs.mkdir(parents=True, exist_ok=True)
            stream = Stream(config, config.logs / "stream.log", "payments")
            try:
                stream.await_caught_up()
                with serving(config, [sys.executable, "-m", "city.cli.main", "serve"]) as port, _page(port) as page:
                    return _measure(config, page, tell, rate, seconds)
            finally:
                stream.stop()


def _measure(config: Settings, page: Any, tell: Callable[[str], None], rate: int, seconds: float) -> dict[str, Any]:
    page.evaluate(_PAGE)
    tell(f"{rate:,} payments a second for {seconds + WARM_UP:g} s")
    sent = _produce(config.kafka, rate, seconds + WARM_UP)
    page.wait_for_timeout(5_000)
    took = np.array(page.evaluate("window.took"), float).reshape(-1, 2)
    ids = page.evaluate("window.ids")
    steady = took[took[:, 0] > took[:, 0].min() + WARM_UP * 1000]
    away = steady[:, 1] - steady[:, 0]
    figures: dict[str, Any] = {
        "bench": "e2e",
        "rate": rate,
        "sent": sent,
        "arrived": len(set(ids)),
        "twice": len(ids) - len(set(ids)),
        "rejected": row_count(quarantine_path(config.lake, PAYMENTS)),
    }
    for name, quantile in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        figures[name] = round(float(np.quantile(away, quantile)), 1)
    return figures


def _produce(kafka: KafkaServer, rate: int, seconds: float) -> int:
    """Owners' payments, each stamped when it is sent; made before, so that making them takes no time then."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    city = City(0, rate=_CARDS / 600, cards=_CARDS)
    paid = list(payloads(city, city.events(moment.timestamp(), moment.timestamp() + 600)))
    made = []
    for number in range(int(rate * seconds)):
        # In turns: two payments of a card within a millisecond would be one.
        card = f"card_{number % _CARDS:05d}"
        own = {"payment_id": f"pay_{number:016x}", "card": card, "timestamp": _STAMP.decode()}
        made.append((card, json.dumps({**paid[number % len(paid)], **own}).encode()))
    producer = Producer(kafka.options({"linger.ms": 5}))
    began = time.monotonic()
    for count, (key, message) in enumerate(made, 1):
        producer.produce(PAYMENTS.topic, message.replace(_STAMP, iso(datetime.now(UTC)).encode()), key)
        ahead = count / rate - (time.monotonic() - began)
        if ahead > 0.005:
            producer.poll(0)
            time.sleep(ahead)
    producer.flush(30)
    return len(made)


@contextlib.contextmanager
def _page(port: int) -> Iterator[Any]:
    """A page of the server's in a real browser. Raises FileNotFoundError where there is none."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        raise FileNotFoundError("no Chromium is on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/health/live")
        yield page
        browser.close()
