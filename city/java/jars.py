"""Downloads the servers' jars once, and checks them before use. jars.lock has their versions and hashes."""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from city.file_lock import file_lock
from city.settings import Settings

LOCK = Path(__file__).with_name("jars.lock")
ROOTS = {
    # Not all dependencies of 4.4.0 resolve. Without log4j's binding the broker writes no log.
    "kafka": ("org.apache.kafka:kafka_2.13:4.2.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3"),
    "questdb": ("org.questdb:questdb:9.3.4",),
}
# Only for `city bench ingest`. Listed without their dependencies, because Spark has those.
ALONE = {
    "spark": (
        "io.delta:delta-spark_2.13:4.0.0",
        "io.delta:delta-storage:4.0.0",
        "org.apache.commons:commons-pool2:2.12.0",
        "org.apache.kafka:kafka-clients:3.9.0",
        "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0",
        "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.0.0",
    )
}


class JarError(RuntimeError):
    """A jar cannot be downloaded, or does not have the hash of the lock."""


@dataclass(frozen=True)
class Jar:
    """A jar of a server: its Maven coordinate (group:artifact:version) and its SHA-256 in hexadecimal."""

    server: str
    coordinate: str
    sha256: str

    def path(self, folder: Path) -> Path:
        """Returns the path of the jar in a folder of jars."""
        _, artifact, version = self.coordinate.split(":")
        return folder / self.server / f"{artifact}-{version}.jar"


def folder(config: Settings) -> Path:
    """Returns the folder of the downloaded jars."""
    return config.cache_folder / "jars"


def locked_jars(server: str | None = None) -> list[Jar]:
    """Returns the jars of a server, or of all servers, from the lock."""
    lines = [line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return [jar for jar in (Jar(*line) for line in lines) if server in (None, jar.server)]


def missing(config: Settings, servers: Iterable[str]) -> list[Jar]:
    """Returns the jars that are not in the cache with the right hash."""
    return [j for s in servers for j in locked_jars(s) if not is_intact(j.path(folder(config)), j.sha256)]


def fetch(config: Settings, jars: list[Jar], progress: Callable[[Jar], None] = lambda jar: None) -> None:
    """Downloads jars into the cache, and calls `progress` after each. Raises JarError with the jar and the fix.

    Several processes may share a cache: one downloads a jar, and the others wait and use it.
    """
    with ThreadPoolExecutor(8) as pool:
        for future in as_completed([pool.submit(_fetch_jar, config, jar) for jar in jars]):
            progress(future.result())


def classpath(config: Settings, server: str) -> str:
    """Returns the Java classpath of a server: its jars in the cache."""
    return ":".join(str(jar.path(folder(config))) for jar in locked_jars(server))


def is_intact(path: Path, sha256: str) -> bool:
    """Returns whether the file exists and has that hash.

    A mark beside the file stores the hash, size and time of the last check. While they are the same, the file is not
    read again.
    """
    mark = path.with_suffix(".sha256")
    if not path.exists():
        return False
    stat = path.stat()
    seal = f"{sha256} {stat.st_size} {stat.st_mtime_ns}"
    if mark.exists() and mark.read_text() == seal:
        return True
    if hash_of(path) != sha256:
        return False
    mark.write_text(seal)
    return True


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock() -> str:
    """Resolves the servers' dependencies again, and returns the text of jars.lock. Needs the network (`make lock`)."""
    import jgo
    from jgo.maven import MavenContext

    context = MavenContext()
    lines = ["# server, coordinate, sha256 of each jar: written by `make lock`"]
    resolved = {
        server: {f"{a.groupId}:{a.artifactId}:{a.version}" for root in roots for a in jgo.resolve(root)}
        for server, roots in ROOTS.items()
    }
    for server, coordinates in (resolved | {server: set(jars) for server, jars in ALONE.items()}).items():
        for coordinate in sorted(coordinates):
            group, artifact, version = coordinate.split(":")
            path = context.project(group, artifact).at_version(version).artifact().resolve()
            lines.append(f"{server} {coordinate} {hash_of(path)}")
    return "\n".join(lines) + "\n"


def _fetch_jar(config: Settings, jar: Jar) -> Jar:
    target = jar.path(folder(config))
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(target):
        if not is_intact(target, jar.sha256):
            _download(config, jar, target)
    return jar


def _download(config: Settings, jar: Jar, target: Path) -> None:
    from jgo.maven import MavenContext

    scratch = folder(config) / ".download" / jar.server / target.stem
    shutil.rmtree(scratch, ignore_errors=True)
    group, artifact, version = jar.coordinate.split(":")
    remote = {"mirror": config.maven_url} if config.maven_url else None
    context = MavenContext(repo_cache=scratch, remote_repos=remote, timeout=60)
    try:
        downloaded = context.project(group, artifact).at_version(version).artifact().resolve()
    except Exception as error:  # requests' errors, and jgo's own error for a missing file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JarError(
            f"cannot fetch {jar.coordinate}: {reason}. It is needed once: connect to the network, set "
            f"CITY_MAVEN_URL to a mirror of Maven Central, or put the file at {target}."
        ) from error
    actual = hash_of(downloaded)
    if actual != jar.sha256:
        raise JarError(
            f"{jar.coordinate} has the hash {actual}, and jars.lock says {jar.sha256}: what was downloaded is not "
            "what was tested. Try again, and if it stays so, do not use the network you are on."
        )
    downloaded.replace(target)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    LOCK.write_text(lock())
