"""A real Chromium, Debian's or the one on the PATH, driven by Playwright."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from city.settings import CHECKOUT

FAILURES = CHECKOUT / ".city" / "failures"  # kept after the run, unlike a test's own folder
_LOGS = 20_000  # characters of each log of the city that are printed

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS))
        yield chromium
        chromium.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keeps what a failed test's browser showed, before its fixtures end it."""
    report = yield
    if call.when == "call" and report.failed and "browser" in getattr(item, "funcargs", {}):
        town = item.funcargs.get("town")
        home = town.config.home if town else item.funcargs.get("tmp_path")
        folder = FAILURES / f"{item.name}-{int(time.time())}"
        for title, text in keep(item.funcargs["browser"], folder, home).items():
            report.sections.append((title, text))
    return report


def keep(browser: Browser, folder: Path, home: Path | None) -> dict[str, str]:
    """Writes a picture, the document and the console of every open page into the folder, and copies the logs that
    are under `home`. Returns the texts to print with the failure, by title."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"kept": str(folder)}
    pages = [page for context in browser.contexts for page in context.pages]
    for number, page in enumerate(pages):
        lines = [page.url, *CONSOLES.get(page, [])]
        (folder / f"console-{number}.txt").write_text("\n".join(lines))
        texts[f"console of page {number}"] = "\n".join(lines)
        with contextlib.suppress(Error):
            page.screenshot(path=folder / f"page-{number}.png", timeout=20_000)
            # Only of a page that answers: reading the document has no timeout.
            (folder / f"page-{number}.html").write_text(page.content())
    for log in sorted(home.rglob("*.log")) if home else []:
        kept = folder / "logs" / log.relative_to(home or log)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, kept)
        texts[str(kept)] = log.read_text(errors="replace")[-_LOGS:]
    return texts


# What each page's console, failed requests and uncaught errors said, in time's order.
CONSOLES: dict[Page, list[str]] = {}


def open_page(browser: Browser, **options: Any) -> Page:
    """A new page whose console, failed requests and uncaught errors are recorded for the case that its test fails."""
    page = browser.new_page(**options)
    lines = CONSOLES[page] = []

    def record(kind: str, text: str) -> None:
        lines.append(f"{time.strftime('%H:%M:%S')} {kind}: {text}")

    page.on("console", lambda message: record(message.type, message.text))
    page.on("pageerror", lambda error: record("uncaught", str(error)))
    page.on("requestfailed", lambda request: record("failed", f"{request.method} {request.url}: {request.failure}"))
    return page
