"""Finds names in the environment and in .env that look like settings but are none: the platform ignores them."""

import difflib
import os
from collections.abc import Iterable

from dotenv import dotenv_values

from city.server_settings import secrets_of
from city.settings import CHECKOUT, Settings

_PREFIX = "CITY_"
_SIMILAR = 0.85  # CITY_PORT, which is not ours, is not taken for CITY_HOST


def unknown_settings(names: Iterable[str] | None = None) -> dict[str, str | None]:
    """Returns each name that begins with CITY_ and is no setting, with the similar setting that may be meant.

    `names` are compared without regard to case. Default: the names in the environment and in .env.
    """
    given = [*os.environ, *dotenv_values(CHECKOUT / ".env")] if names is None else names
    known = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    known += [f"{_PREFIX}{name.upper()}_FILE" for name in secrets_of(Settings)]
    unknown = sorted({name for name in given if name.upper().startswith(_PREFIX) and name.upper() not in known})
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, 1, _SIMILAR)), None) for name in unknown}
