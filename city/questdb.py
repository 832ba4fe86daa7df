"""Sends statements and queries to QuestDB over HTTP, and resumes its suspended tables."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class QuestDBError(RuntimeError):
    """QuestDB refused a statement. The message contains QuestDB's own message and the statement."""


@dataclass(frozen=True)
class QuestDBServer:
    """A QuestDB, and what a client needs to log in. As a text it is its address, so secrets are in no message.

    A client has a `token`, or a `username` and a `password`. With `tls`, the connection is encrypted; `ca` is the
    certificate of the authority that signed the server's, where the machine does not know it.
    """

    address: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: bool = False
    ca: Path | None = None

    def __str__(self) -> str:
        return self.address

    @property
    def url(self) -> str:
        """The address of its HTTP server."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    def request_options(self) -> dict[str, Any]:
        """Returns the options of a request of the package requests."""
        options: dict[str, Any] = {"verify": str(self.ca)} if self.ca else {}
        if self.token:
            options["auth"] = self._bear_token  # a header would be replaced by a login of ~/.netrc
        elif self.username:
            options["auth"] = (self.username, self.password)
        return options

    def _bear_token(self, request: Any) -> Any:
        request.headers["authorization"] = f"Bearer {self.token}"
        return request

    def refusal(self, seconds: float = 5.0) -> str | None:
        """Returns why QuestDB refuses a login, with the setting that mends it; None where it does not, or is away."""
        import requests

        try:
            execute(self, "SELECT 1", seconds)
        except QuestDBError as error:
            return str(error)
        except requests.exceptions.SSLError as error:
            hint = "set CITY_QUESTDB_CA" if "verify failed" in str(error) else "is CITY_QUESTDB_TLS that of this port?"
            hint = "its certificate has expired: renew it" if "expired" in str(error) else hint
            return f"QuestDB at {self}: {type(error).__name__}: {hint}"
        except requests.RequestException:
            return None
        return None

    def sender_conf(self, options: str) -> str:
        """Returns the configuration of QuestDB's own client. It has the secrets."""
        parts = [f"addr={self.address}"]
        if self.token:
            parts.append(f"token={_escape(self.token)}")
        elif self.username:
            parts += [f"username={_escape(self.username)}", f"password={_escape(self.password)}"]
        if self.ca:
            parts.append(f"tls_roots={self.ca}")
        return f"{'https' if self.tls else 'http'}::{';'.join(parts)};{options}"


def _escape(value: str) -> str:
    return value.replace(";", ";;")


def execute(server: QuestDBServer, sql: str, seconds: float = 10.0) -> dict[str, Any]:
    """Runs one statement and returns the JSON of QuestDB's /exec (`columns`, `dataset`, …).

    `seconds` is the timeout. Raises QuestDBError where the statement or the login is refused, and
    requests.RequestException where the server is unavailable.
    """
    import requests  # most processes read the settings and send no query

    response = requests.get(f"{server.url}/exec", params={"query": sql}, timeout=seconds, **server.request_options())
    if response.status_code in (401, 403):
        raise QuestDBError(
            f"QuestDB at {server} refuses the login (HTTP {response.status_code}): check CITY_QUESTDB_TOKEN, or "
            "CITY_QUESTDB_USERNAME and CITY_QUESTDB_PASSWORD"
        )
    try:
        result: dict[str, Any] = response.json()
    except ValueError:
        raise QuestDBError(
            f"{server} answered HTTP {response.status_code}, not QuestDB's JSON: is it a QuestDB?"
        ) from None
    if "error" in result:
        raise QuestDBError(f"{result['error']} (at character {result.get('position', '?')} of: {sql})")
    return result


def rows(server: QuestDBServer, sql: str) -> list[list[Any]]:
    """Returns the rows of a query. Raises as `execute` does."""
    return list(execute(server, sql)["dataset"])


def resume_suspended(server: QuestDBServer, tables: list[str]) -> list[str]:
    """Resumes those of `tables` whose WAL was suspended by a crash or a full disk, and returns them.

    It skips no suspended transaction. That is safe here, because the stream sends their rows again from bronze.
    """
    suspended = [row[0] for row in rows(server, "SELECT name, suspended FROM wal_tables()") if row[1]]
    resumed = [table for table in suspended if table in tables]
    for table in resumed:
        execute(server, f"ALTER TABLE {table} RESUME WAL")
    return resumed
