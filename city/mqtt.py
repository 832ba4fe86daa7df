"""How clients reach the MQTT broker and log in there."""

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from city.net import split_address

if TYPE_CHECKING:  # most processes read the settings and have no client
    import paho.mqtt.client as paho
    from paho.mqtt.reasoncodes import ReasonCode

_KEEPALIVE = 30
_SESSION_SECONDS = 7 * 86_400
"""How long an MQTT 5 broker keeps the session of a bridge that is away."""


@dataclass(frozen=True)
class MqttServer:
    """An MQTT broker, and what a client needs to log in. As a text it is its address, so secrets are in no message.

    With a `ca`, or with `tls` by the authorities of the machine, the connection is encrypted. `certificate` and `key`
    are the client's. `group` is that of shared subscriptions, so that several bridges divide the messages.
    """

    address: str
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    version: str = "3.1.1"
    group: str = ""

    def __str__(self) -> str:
        return self.address

    @property
    def is_encrypted(self) -> bool:
        """Whether clients use TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    @property
    def is_5(self) -> bool:
        """Whether clients speak MQTT 5."""
        return self.version == "5"

    def client(self, client_id: str, lasting: bool = False, **options: Any) -> "paho.Client":
        """Creates a client that knows how to log in. The broker keeps the session of a `lasting` one."""
        import paho.mqtt.client as paho

        if not self.is_5:
            options["clean_session"] = not lasting
        protocol = paho.MQTTv5 if self.is_5 else paho.MQTTv311
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=protocol, **options)
        if self.username:
            client.username_pw_set(self.username, self.password or None)
        if self.is_encrypted:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
            client.tls_set_context(context)
        return client

    def connect(self, client: "paho.Client", lasting: bool = False, wait: bool = True) -> None:
        """Connects a client; with `wait` false, in its loop. Raises OSError where the broker is unavailable."""
        options: dict[str, Any] = {}
        if self.is_5:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            options["clean_start"] = not lasting
            if lasting:
                options["properties"] = Properties(PacketTypes.CONNECT)
                options["properties"].SessionExpiryInterval = _SESSION_SECONDS
        connect = client.connect if wait else client.connect_async
        connect(*split_address(self.address), keepalive=_KEEPALIVE, **options)

    def refusal(self, seconds: float = 5.0) -> str | None:
        """Returns why the broker refuses a login, and the setting that mends it; None where it does not, or is away."""
        codes: list[ReasonCode] = []
        client = self.client("")
        client.on_connect = lambda client, data, flags, code, properties: codes.append(code)
        try:
            self.connect(client)
        except ssl.SSLError as error:
            return f"the MQTT broker at {self}: {self.explain(error)}"
        except OSError:
            return None
        ends = time.monotonic() + seconds
        while not codes and time.monotonic() < ends:
            client.loop(0.2)
        client.disconnect()
        return f"the MQTT broker at {self}: {self.explain(codes[0])}" if codes and codes[0].is_failure else None

    def subscription(self, mqtt_filter: str) -> str:
        """Returns the filter to subscribe to, which is a shared one where there is a group."""
        return f"$share/{self.group}/{mqtt_filter}" if self.group else mqtt_filter

    def explain(self, error: "OSError | ReasonCode | str") -> str:
        """Returns why there is no connection, with the setting that mends it."""
        text = str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            if "expired" in text:
                return f"{text}: the broker's certificate has expired"
            return f"{text}: set CITY_MQTT_CA to the certificate of the authority that signed the broker's"
        if isinstance(error, ssl.SSLError) or "SSL" in text:
            return f"{text}: is this the broker's port for TLS?"
        if text.lower() in ("not authorized", "bad user name or password"):
            return f"{text}: check CITY_MQTT_USERNAME and CITY_MQTT_PASSWORD"
        return text
