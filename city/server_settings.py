"""The settings of the servers that the platform uses: their addresses, logins and certificates."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from city.certificates import check_certificate
from city.kafka import KafkaServer, Mechanism, Security
from city.mqtt import MqttServer
from city.net import is_wildcard, join_address, reached_at, split_address
from city.questdb import QuestDBServer

CERTIFICATES = {
    "kafka_ca": True,
    "kafka_cert": False,
    "questdb_ca": True,
    "mqtt_ca": True,
    "mqtt_cert": False,
    "mlflow_ca": True,
    "schema_registry_ca": True,
}
"""The settings that are files of certificates, and whether they are of authorities."""
Port = Annotated[int, Field(ge=1, le=65535)]


class SecretFiles(PydanticBaseSettingsSource):
    """Reads secrets from files: CITY_<NAME>_FILE is the path of the file with the secret CITY_<NAME>."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Returns the content of a secret's file, without the end of its last line; None where it has no file."""
        name = f"{self.config['env_prefix']}{field_name}_FILE".upper()
        path = os.environ.get(name) or self._dotenv.get(name)
        if not path:
            return None, field_name, False
        try:
            return Path(path).expanduser().read_text().rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not a text"
            raise ValueError(f"{name}: {path}: {reason}") from None

    def __call__(self) -> dict[str, Any]:
        """Returns all secrets that have files."""
        file = self.config.get("env_file")
        self._dotenv = dotenv_values(str(file)) if file and Path(str(file)).is_file() else {}
        fields, secrets = self.settings_cls.model_fields, secrets_of(self.settings_cls)
        found = {name: self.get_field_value(fields[name], name)[0] for name in secrets}
        return {name: value for name, value in found.items() if value is not None}


def secrets_of(kind: type[BaseSettings]) -> list[str]:
    """Returns the names of the settings that are a secret each."""
    return [name for name, field in kind.model_fields.items() if field.annotation in (SecretStr, SecretStr | None)]


class ServerSettings(BaseSettings):
    """Addresses, logins and certificates. A server whose address is given is not started."""

    kafka_address: str | None = Field(None, description="host:port of a Kafka to use instead of the embedded one")
    kafka_host: str = Field("127.0.0.1", description="the embedded Kafka's address; it has no access control")
    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    kafka_security: Security = Field("PLAINTEXT", description="the protocol of Kafka's listener")
    kafka_mechanism: Mechanism | None = Field(None, description="the SASL mechanism, with kafka_security SASL_…")
    kafka_username: str = Field("", description="the user; of OAUTHBEARER the client's id")
    kafka_password: SecretStr | None = Field(None, description="the password; of OAUTHBEARER the client's secret")
    kafka_ca: Path | None = Field(None, description="a PEM file: the authority of Kafka's certificate")
    kafka_cert: Path | None = Field(None, description="a PEM file: this client's certificate, with kafka_key")
    kafka_key: Path | None = None
    kafka_key_password: SecretStr | None = None
    kafka_token_url: str = Field("", description="where OAUTHBEARER gets its tokens (client credentials)")
    kafka_scope: str = Field("", description="the scope of the tokens")
    kafka_replication: int = Field(1, ge=-1, description="replicas of created topics; -1: as Kafka is set")
    kafka_topic_config: dict[str, str] = Field({}, description="options of the topics that the city creates")
    kafka_create_topics: bool = Field(True, description="whether the city creates the topics that are missing")

    questdb_address: str | None = Field(None, description="host:port of a QuestDB's HTTP server to use instead")
    questdb_host: str = Field("127.0.0.1", description="the embedded QuestDB's address; it has no password")
    questdb_http_port: Port = 9000
    questdb_pg_port: Port = 8812
    questdb_username: str = ""
    questdb_password: SecretStr | None = None
    questdb_token: SecretStr | None = Field(None, description="a bearer token, in place of user and password")
    questdb_tls: bool = False
    questdb_ca: Path | None = Field(None, description="a PEM file: the authority of QuestDB's certificate")

    mqtt_address: str | None = Field(None, description="host:port of an MQTT broker to use instead")
    mqtt_host: str = Field("127.0.0.1", description="the embedded MQTT broker's address; it has no password")
    mqtt_port: Port = 1883
    mqtt_username: str | None = None
    mqtt_password: SecretStr | None = None
    mqtt_tls: bool = Field(False, description="TLS; a CA or a certificate turns it on too")
    mqtt_ca: Path | None = Field(None, description="a PEM file: the authority of the broker's certificate")
    mqtt_cert: Path | None = Field(None, description="a PEM file: this client's certificate, with mqtt_key")
    mqtt_key: Path | None = None
    mqtt_version: Literal["3.1.1", "5"] = "3.1.1"
    mqtt_group: str = Field("", description="shared subscriptions: the bridges of a group divide the messages")
    mqtt_client_id: str = Field("", description="the bridge's; default: one for each installation")

    redis_url: SecretStr | None = Field(None, description="the online feature store on Redis, not SQLite")
    dagster_postgres_url: SecretStr | None = Field(None, description="Dagster's storage on PostgreSQL, not SQLite")
    mlflow_url: str | None = Field(None, description="an MLflow server, instead of SQLite and files in CITY_HOME")
    mlflow_username: str = ""
    mlflow_password: SecretStr | None = None
    mlflow_token: SecretStr | None = Field(None, description="a bearer token, in place of user and password")
    mlflow_ca: Path | None = Field(None, description="a PEM file: the authority of MLflow's certificate")
    schema_registry_url: str | None = Field(None, description="a registry that speaks Confluent's REST API")
    schema_registry_username: str = ""
    schema_registry_password: SecretStr | None = None
    schema_registry_ca: Path | None = Field(None, description="a PEM file: the authority of the registry's certificate")
    alerts_url: SecretStr | None = Field(None, description="alarms on PostgreSQL (an SQLAlchemy URL), not SQLite")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds the files of secrets, after the environment and .env."""
        return init_settings, env_settings, dotenv_settings, SecretFiles(settings_cls), file_secret_settings

    @field_validator("kafka_address", "questdb_address", "mqtt_address")
    @classmethod
    def _check_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        brokers = (value or "").split(",") if info.field_name == "kafka_address" else [value or ""]
        for address in brokers if value is not None else ():
            split_address(address.strip())
        return value

    @field_validator("kafka_host")
    @classmethod
    def _check_one_address(cls, value: str) -> str:
        if is_wildcard(value):
            raise ValueError(f"Kafka tells its clients to connect to {value}: give the one address that they reach")
        return value

    @field_validator(*CERTIFICATES)
    @classmethod
    def _check_certificate(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_certificate(value)
        return value

    @field_validator("mlflow_url", "schema_registry_url")
    @classmethod
    def _check_no_login(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "@" in urlsplit(value).netloc:
            name = f"CITY_{info.field_name}".upper()
            login = name.removesuffix("URL")
            raise ValueError(f"{name} has a login, and addresses are shown: set {login}USERNAME and {login}PASSWORD")
        return value

    @field_validator("kafka_key", "mqtt_key")
    @classmethod
    def _check_key(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @model_validator(mode="after")
    def _check_logins(self) -> "ServerSettings":
        def require(valid: bool, mend: str) -> None:
            if not valid:
                raise ValueError(mend)

        secured = self.kafka_security != "PLAINTEXT"
        sasl = self.kafka_security.startswith("SASL")
        require(
            not secured or self.kafka_address is not None,
            "CITY_KAFKA_SECURITY needs CITY_KAFKA_ADDRESS: the embedded Kafka has no access control",
        )
        require(
            sasl == (self.kafka_mechanism is not None),
            f"CITY_KAFKA_SECURITY is {self.kafka_security}: "
            + ("set CITY_KAFKA_MECHANISM" if sasl else "CITY_KAFKA_MECHANISM needs SASL_PLAINTEXT or SASL_SSL"),
        )
        require(
            not sasl or bool(self.kafka_username and self.kafka_password),
            "SASL needs CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD (or CITY_KAFKA_PASSWORD_FILE)",
        )
        require(
            self.kafka_mechanism != "OAUTHBEARER" or bool(self.kafka_token_url),
            "OAUTHBEARER needs CITY_KAFKA_TOKEN_URL",
        )
        require(
            sasl or not (self.kafka_username or self.kafka_password),
            "CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD need CITY_KAFKA_SECURITY=SASL_SSL (or SASL_PLAINTEXT) and "
            "CITY_KAFKA_MECHANISM",
        )
        require(
            self.kafka_security.endswith("SSL") or not (self.kafka_ca or self.kafka_cert),
            "CITY_KAFKA_CA and CITY_KAFKA_CERT need CITY_KAFKA_SECURITY=SSL or SASL_SSL",
        )
        require(
            self.mqtt_address is not None or not (self.mqtt_tls or self.mqtt_ca or self.mqtt_cert),
            "CITY_MQTT_TLS, CITY_MQTT_CA and CITY_MQTT_CERT need CITY_MQTT_ADDRESS: the embedded broker has no TLS",
        )
        require(bool(self.mqtt_username) or not self.mqtt_password, "CITY_MQTT_PASSWORD needs CITY_MQTT_USERNAME")
        require(
            self.questdb_address is not None or not (self.questdb_tls or self.questdb_ca),
            "CITY_QUESTDB_TLS and CITY_QUESTDB_CA need CITY_QUESTDB_ADDRESS: the embedded QuestDB has no TLS",
        )
        for name in ("questdb", "mlflow", "schema_registry"):
            user, password = getattr(self, f"{name}_username"), getattr(self, f"{name}_password")
            both = f"CITY_{name.upper()}_USERNAME and CITY_{name.upper()}_PASSWORD belong together"
            require(bool(user) == bool(password), both)
        for server in ("kafka", "mqtt"):
            certificate, key = getattr(self, f"{server}_cert"), getattr(self, f"{server}_key")
            name = f"CITY_{server.upper()}"
            require((certificate is None) == (key is None), f"{name}_CERT and {name}_KEY belong together")
        return self

    @property
    def dagster_postgres(self) -> str | None:
        """The SQLAlchemy URL of Dagster's storage on PostgreSQL; None for SQLite."""
        return with_driver(_reveal(self.dagster_postgres_url)) if self.dagster_postgres_url else None

    @property
    def mlflow_environment(self) -> dict[str, str]:
        """The environment variables from which MLflow's client takes its login and the server's authority."""
        given = {
            "MLFLOW_TRACKING_USERNAME": self.mlflow_username,
            "MLFLOW_TRACKING_PASSWORD": _reveal(self.mlflow_password),
            "MLFLOW_TRACKING_TOKEN": _reveal(self.mlflow_token),
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.mlflow_ca or ""),
        }
        return {name: value for name, value in given.items() if value}

    @property
    def kafka(self) -> KafkaServer:
        """The Kafka that clients connect to."""
        return KafkaServer(
            self.kafka_address or join_address(self.kafka_host, self.kafka_port),
            self.kafka_security,
            self.kafka_mechanism,
            self.kafka_username,
            _reveal(self.kafka_password),
            self.kafka_ca,
            self.kafka_cert,
            self.kafka_key,
            _reveal(self.kafka_key_password),
            self.kafka_token_url,
            self.kafka_scope,
            self.kafka_replication,
            tuple(sorted(self.kafka_topic_config.items())),
            self.kafka_create_topics,
        )

    @property
    def questdb(self) -> QuestDBServer:
        """The QuestDB that clients connect to."""
        return QuestDBServer(
            self.questdb_address or join_address(reached_at(self.questdb_host), self.questdb_http_port),
            self.questdb_username,
            _reveal(self.questdb_password),
            _reveal(self.questdb_token),
            self.questdb_tls or self.questdb_ca is not None,
            self.questdb_ca,
        )

    @property
    def mqtt(self) -> MqttServer:
        """The MQTT broker that clients connect to."""
        return MqttServer(
            self.mqtt_address or join_address(reached_at(self.mqtt_host), self.mqtt_port),
            self.mqtt_username or "",
            _reveal(self.mqtt_password),
            self.mqtt_tls,
            self.mqtt_ca,
            self.mqtt_cert,
            self.mqtt_key,
            self.mqtt_version,
            self.mqtt_group,
        )


def with_driver(url: str) -> str:
    """Returns an SQLAlchemy URL of PostgreSQL with the driver that Dagster installs. SQLAlchemy 2.1 chooses another."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgres", "postgresql") else url


def _reveal(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
