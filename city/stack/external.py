"""The servers that the city uses and does not start: their names, and whether they refuse the login."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr

from city.certificates import find_expiry
from city.lake.location import cold_location
from city.server_settings import CERTIFICATES, with_driver
from city.settings import Settings
from city.stack.part import CannotStart

_SECONDS = 5


@dataclass(frozen=True)
class ExternalStore:
    """A server for one purpose of the city, given by the URL of a setting.

    `check` connects once. It returns the reason why the server refuses the city, or None where it does not refuse, or
    is away: one that is away is waited for, as after a restart.
    """

    name: str
    address: str
    check: Callable[[], str | None]


def external_stores(config: Settings) -> list[ExternalStore]:
    """Returns the external servers that have no embedded process in their place: those replace files."""
    stores = []
    for name, url, setting in (
        ("dagster-storage", config.dagster_postgres_url, "CITY_DAGSTER_POSTGRES_URL"),
        ("alarm-storage", config.alerts_url, "CITY_ALERTS_URL"),
    ):
        if url is not None and with_driver(url.get_secret_value()).startswith("postgresql"):
            stores.append(ExternalStore(name, _address(url), partial(_check_postgres, url, setting)))
    if (redis_url := config.redis_url) is not None:
        stores.append(ExternalStore("redis", _address(redis_url), partial(_check_redis, redis_url)))
    if config.mlflow_url:
        stores.append(ExternalStore("mlflow", config.mlflow_url, partial(_check_mlflow, config)))
    if config.schema_registry_url:
        stores.append(ExternalStore("schema-registry", config.schema_registry_url, partial(_check_registry, config)))
    if config.is_cold_on_s3:
        address = f"{config.cold_path} ({config.cold_server})"
        stores.append(ExternalStore("cold-storage", address, cold_location(config).refusal))
    return stores


def check_logins(config: Settings) -> None:
    """Connects to each external server once. One that is away is waited for later, as after a restart.

    Raises CannotStart that names each server which refuses the login, and the setting that mends it, and each
    certificate that has expired.
    """
    if expired := _find_expired(config):
        raise CannotStart("; ".join(expired))
    servers = (
        (config.kafka_address, config.kafka),
        (config.questdb_address, config.questdb),
        (config.mqtt_address, config.mqtt),
    )
    checks: list[Callable[[], str | None]] = [server.refusal for address, server in servers if address is not None]
    checks += [store.check for store in external_stores(config)]
    if not checks:
        return
    with ThreadPoolExecutor(len(checks)) as pool:
        refusals = [refusal for refusal in pool.map(lambda check: check(), checks) if refusal is not None]
    if refusals:
        raise CannotStart("; ".join(refusals))


def _find_expired(config: Settings) -> list[str]:
    """Returns a text for each file of certificates that has expired."""
    texts = []
    for name, is_authority in (CERTIFICATES | {"tls_cert": False}).items():
        path = getattr(config, name)
        if path is not None and (expiry := find_expiry(path, is_authority)) is not None:
            texts.append(f"CITY_{name.upper()}: the certificate {path} expired on {expiry:%Y-%m-%d}: renew it")
    return texts


def _address(url: SecretStr) -> str:
    """Returns the host, the port and the path of a URL, without its login."""
    parts = urlsplit(url.get_secret_value())
    return parts.netloc.rpartition("@")[2] + parts.path


def _check_postgres(url: SecretStr, setting: str) -> str | None:
    import sqlalchemy

    server = f"PostgreSQL at {_address(url)}"
    try:
        engine = sqlalchemy.create_engine(
            with_driver(url.get_secret_value()),
            connect_args={"connect_timeout": _SECONDS},
            poolclass=sqlalchemy.pool.NullPool,
        )
        with engine.connect():
            return None
    except ImportError:
        return f"{setting} needs PostgreSQL's client: pip install 'city[postgres]'"
    except sqlalchemy.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
    if "authentication failed" in reason or "no password supplied" in reason:
        return f"{server} refuses the login: check the user and the password in {setting}"
    if "does not exist" in reason:
        return f"{server} has no such database or user: create it, or mend {setting}"
    if "certificate" in reason or "SSL" in reason or "pg_hba.conf" in reason:
        return f"{server} and {setting} disagree about TLS or access (sslmode, sslrootcert): {reason}"
    return None


def _check_redis(url: SecretStr) -> str | None:
    try:
        import redis
    except ImportError:
        return "CITY_REDIS_URL needs Redis's client: pip install 'city[redis]'"
    server = f"Redis at {_address(url)}"
    try:
        redis.Redis.from_url(url.get_secret_value(), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS).ping()
    except redis.AuthenticationError:
        return f"{server} refuses the login: check the user and the password in CITY_REDIS_URL"
    except redis.ResponseError as error:  # for example a command without a login
        return f"{server} refuses the city ({error}): check the user and the password in CITY_REDIS_URL"
    except redis.RedisError as error:
        if "certificate" in str(error).lower():
            return f"{server}: {error}: add ssl_ca_certs=FILE to CITY_REDIS_URL"
    return None


def _check_mlflow(config: Settings) -> str | None:
    token = config.mlflow_token
    return _check_http(
        f"{config.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1",
        f"MLflow at {config.mlflow_url}",
        "CITY_MLFLOW",
        (config.mlflow_username, config.mlflow_password),
        config.mlflow_ca,
        {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {},
    )


def _check_registry(config: Settings) -> str | None:
    return _check_http(
        f"{config.schema_registry_url}/subjects",
        f"the schema registry at {config.schema_registry_url}",
        "CITY_SCHEMA_REGISTRY",
        (config.schema_registry_username, config.schema_registry_password),
        config.schema_registry_ca,
    )


def _check_http(
    url: str,
    server: str,
    setting: str,
    login: tuple[str, SecretStr | None],
    ca: Path | None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> str | None:
    """Requests the URL of a server. `setting` is what the names of its settings begin with."""
    user, password = login
    try:
        response = requests.get(
            url,
            auth=(user, password.get_secret_value()) if password else None,
            headers=headers,
            verify=str(ca) if ca else True,
            timeout=_SECONDS,
        )
    except requests.exceptions.SSLError as error:
        return f"{server}: {error.args[0]}: set {setting}_CA to the certificate of the authority that signed its own"
    except requests.RequestException:
        return None
    if response.status_code in (401, 403):
        return f"{server} refuses the login (HTTP {response.status_code}): check {setting}_USERNAME and _PASSWORD"
    return None
