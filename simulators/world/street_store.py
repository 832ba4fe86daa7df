"""Stores the street network, so that only the first process of a machine builds it."""

import hashlib
import logging
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

import city_assets.traffic
from city.settings import Settings
from simulators.world import streets as module
from simulators.world.streets import Streets, build_streets, use_streets

log = logging.getLogger(__name__)


def load_streets(config: Settings) -> None:
    """Makes `streets` return the stored network. Builds and stores it where there is none, or a broken one.

    The file's name has a digest of what the network is made from, so a later release does not read an old network.
    """
    path = config.cache_folder / f"streets-{_digest()}.npz"
    try:
        with np.load(path) as stored:
            network = Streets(**{field.name: stored[field.name] for field in fields(Streets)})
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        network = build_streets()
        _store(path, network)
    use_streets(network)


def _store(path: Path, network: Streets) -> None:
    fresh = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(fresh, **{field.name: getattr(network, field.name) for field in fields(Streets)})
        fresh.replace(path)
    except OSError as error:  # the next process builds it again
        with suppress(OSError):
            fresh.unlink()
        log.warning("cannot store the street network in %s: %s", path, error)


def _digest() -> str:
    assert module.__file__ is not None
    assert city_assets.traffic.__file__ is not None
    sources = (Path(module.__file__), Path(city_assets.traffic.__file__).parent / "waters.json")
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
