"""How clients reach Kafka and log in there: declared once, for both client libraries."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from city.net import accepts, speaks_kafka, speaks_tls, split_address

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
_TOKEN_MARGIN = 30.0
_TOKEN_SECONDS = 10.0


@dataclass(frozen=True)
class KafkaServer:
    """A Kafka, and what a client needs to log in. As a text it is its address, so secrets are in no message.

    `address` is host:port, or several with commas. For OAUTHBEARER, `username` and `password` are the id and the secret
    of the client at `token_url`. `replication` and `topic_config` are those of topics that the city creates; it creates
    none where `creates_topics` is false.
    """

    address: str
    security: Security = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str = field(default="", repr=False)
    token_url: str = ""
    scope: str = ""
    replication: int = 1
    topic_config: tuple[tuple[str, str], ...] = ()
    creates_topics: bool = True

    def __str__(self) -> str:
        return self.address

    @property
    def brokers(self) -> list[tuple[str, int]]:
        """The host and the port of each broker of the address."""
        return [split_address(address) for address in self.address.split(",")]

    def listens(self) -> bool:
        """Returns whether a broker accepts connections."""
        return any(accepts(*broker) for broker in self.brokers)

    def complaint(self, seconds: float = 3.0) -> str | None:
        """Returns why no client can log in, or None where one can."""
        if self.security == "PLAINTEXT":  # asks without a client, which takes longer to make than to answer
            answers = any(speaks_kafka(*broker) for broker in self.brokers)
            return None if answers else f"no Kafka answers at {self}"
        return self._log_in(seconds)[0]

    def refusal(self, seconds: float = 5.0) -> str | None:
        """Returns why Kafka refuses the login, with the setting that mends it; None where it does not, or is away."""
        told, is_refusal = self._log_in(seconds)
        return told if is_refusal else None

    def _log_in(self, seconds: float) -> tuple[str | None, bool]:
        """Logs in. Returns why that is not possible, and whether a setting mends it."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        errors: list[KafkaError] = []
        admin = AdminClient(self.options({"error_cb": errors.append}))
        try:
            admin.list_topics(timeout=seconds)
        except KafkaException as error:
            admin.poll(0.1)  # the reasons wait for a poll; the exception says only that there is no answer
            reasons = [(each.str() or each.name(), self._hint(each)) for each in [*errors, error.args[0]]]
            text, hint = next((reason for reason in reasons if reason[1]), reasons[0])
            return f"Kafka at {self}: {text}{': ' if hint else ''}{hint}", bool(hint)
        return None, False

    def options(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the options of a client of confluent-kafka, with `more` of them."""
        options: dict[str, Any] = {"bootstrap.servers": self.address, "log_level": 0}
        if self.security != "PLAINTEXT":
            options["security.protocol"] = self.security
        if self.mechanism == "OAUTHBEARER":
            options |= {
                "sasl.mechanism": self.mechanism,
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": self.username,
                "sasl.oauthbearer.client.secret": self.password,
                "sasl.oauthbearer.token.endpoint.url": self.token_url,
            }
            options |= {"sasl.oauthbearer.scope": self.scope} if self.scope else {}
        elif self.mechanism:
            options |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        files = {
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.certificate,
            "ssl.key.location": self.key,
            "ssl.key.password": self.key_password,
        }
        return options | {name: str(value) for name, value in files.items() if value} | dict(more or {})

    def python_options(self) -> dict[str, Any]:
        """Returns the options of a client of kafka-python."""
        options: dict[str, Any] = {"bootstrap_servers": self.address.split(","), "security_protocol": self.security}
        if self.mechanism == "OAUTHBEARER":
            options |= {"sasl_mechanism": self.mechanism, "sasl_oauth_token_provider": self._token_provider()}
        elif self.mechanism:
            options["sasl_mechanism"] = self.mechanism
            options |= {"sasl_plain_username": self.username, "sasl_plain_password": self.password}
        files = {
            "ssl_cafile": self.ca,
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
            "ssl_password": self.key_password,
        }
        return options | {name: str(value) for name, value in files.items() if value}

    def explain(self, error: "KafkaError") -> str:
        """Returns an error of confluent-kafka in words, with the setting that mends it."""
        text = error.str() or error.name()
        return f"{text}: {hint}" if (hint := self._hint(error)) else text

    def _hint(self, error: "KafkaError") -> str:
        """Returns the setting that mends an error, as a request. Returns an empty text where none does."""
        name, text = error.name(), error.str() or error.name()
        if name == "_AUTHENTICATION" or "SASL" in text:
            if "mechanism" in text.lower() and "unsupported" in text.lower():
                return f"CITY_KAFKA_MECHANISM is {self.mechanism or 'not set'}, which this Kafka does not offer"
            return "check CITY_KAFKA_MECHANISM, CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD"
        if name == "_SSL" or "SSL" in text:
            if "expired" in text:
                return "a certificate has expired: renew it"
            if "alert" in text and "certificate" in text:
                return "Kafka refuses CITY_KAFKA_CERT: check its date and its authority"
            if "verify failed" in text:
                return "set CITY_KAFKA_CA to the certificate of the authority that signed Kafka's"
            return self._hint_at_protocol()
        if name in ("_TRANSPORT", "_ALL_BROKERS_DOWN"):
            return self._hint_at_protocol()
        if name.endswith("_AUTHORIZATION_FAILED"):
            who = f"the user {self.username}" if self.username else "this client"
            return f"an ACL of Kafka refuses it to {who}"
        return ""

    def _hint_at_protocol(self) -> str:
        """Returns what to set where the brokers' ports speak another protocol than the city."""
        uses_tls = self.security.endswith("SSL")
        if not uses_tls and any(speaks_tls(*broker) for broker in self.brokers):
            return f"this port speaks TLS: set CITY_KAFKA_SECURITY to SSL or SASL_SSL (now {self.security})"
        if uses_tls and any(speaks_kafka(*broker) for broker in self.brokers):
            return f"this port has no TLS: set CITY_KAFKA_SECURITY to SASL_PLAINTEXT or PLAINTEXT (now {self.security})"
        return ""

    def _token_provider(self) -> Any:
        """Returns an object that fetches tokens for kafka-python: by client credentials, each until it expires."""
        from kafka.net.sasl.oauth import AbstractTokenProvider

        server, known = self, ("", 0.0)

        class TokenProvider(AbstractTokenProvider):
            def token(self) -> str:
                nonlocal known
                if time.time() > known[1]:
                    token, seconds = server._fetch_token()
                    known = token, time.time() + seconds - _TOKEN_MARGIN
                return known[0]

        return TokenProvider()

    def _fetch_token(self) -> tuple[str, float]:
        import requests

        body = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        answer = requests.post(self.token_url, body, auth=(self.username, self.password), timeout=_TOKEN_SECONDS)
        if not answer.ok:
            raise ConnectionError(
                f"{self.token_url} gives no token (HTTP {answer.status_code}): check CITY_KAFKA_USERNAME, "
                "CITY_KAFKA_PASSWORD and CITY_KAFKA_SCOPE"
            )
        content = answer.json()
        return str(content["access_token"]), float(content.get("expires_in", 300))
