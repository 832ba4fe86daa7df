"""Checks the logins of servers that the city uses and does not start."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

from city.lake.location import cold_location
from city.server_settings import with_driver
from city.settings import Settings
from city.stack.part import CannotStart

_SECONDS = 5
_POSTGRES_REFUSES = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
"""Signs of an answer of PostgreSQL's that no later attempt changes."""


def check_logins(config: Settings) -> None:
    """Asks each external server once. One that is away is waited for later, as after a restart.

    Raises CannotStart that names each server which refuses the login, and the setting that mends it.
    """
    asked: list[Callable[[], str | None]] = [
        server.refusal
        for address, server in (
            (config.kafka_address, config.kafka),
            (config.questdb_address, config.questdb),
            (config.mqtt_address, config.mqtt),
        )
        if address is not None
    ]
    if config.redis_url:
        asked.append(partial(_ask_redis, config.redis_url.get_secret_value()))
    databases = {"CITY_ALERTS_URL": config.alerts_url, "CITY_DAGSTER_POSTGRES_URL": config.dagster_postgres_url}
    for setting, url in databases.items():
        if url is not None and with_driver(url.get_secret_value()).startswith("postgresql"):
            asked.append(partial(_ask_postgres, setting, with_driver(url.get_secret_value())))
    if config.is_cold_on_s3:
        asked.append(cold_location(config).refusal)
    if not asked:
        return
    with ThreadPoolExecutor(len(asked)) as pool:
        refusals = [told for told in pool.map(lambda ask: ask(), asked) if told is not None]
    if refusals:
        raise CannotStart("; ".join(refusals))


def _ask_redis(url: str) -> str | None:
    """Returns why Redis refuses the login; None where it does not, or is away."""
    try:
        import redis
    except ImportError:
        return "CITY_REDIS_URL needs the Redis client: pip install 'city[redis]'"
    try:
        redis.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS).ping()
    except (redis.AuthenticationError, redis.ResponseError) as error:  # the second: a command without a login
        return f"Redis at {_host_of(url)}: {error}: check the user and the password in CITY_REDIS_URL"
    except (redis.RedisError, OSError):
        return None
    return None


def _ask_postgres(setting: str, url: str) -> str | None:
    """Returns why PostgreSQL refuses the login; None where it does not, or is away."""
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(url, connect_args={"connect_timeout": _SECONDS}, poolclass=sa.NullPool)
        with engine.connect():
            return None
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        text = str(error.__cause__ or error).strip().splitlines()[0]
        refused = any(sign in text for sign in _POSTGRES_REFUSES) or isinstance(error, ImportError)
        return f"PostgreSQL at {_host_of(url)}: {text}: check {setting}" if refused else None


def _host_of(url: str) -> str:
    """Returns the address in a URL without its login."""
    return urlsplit(url).netloc.rpartition("@")[2]
