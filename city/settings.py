"""Reads all configuration into one typed object. Each field is set by CITY_<NAME>, in the environment or in .env."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from city.certificates import check_certificate
from city.cold_settings import ColdSettings
from city.feed_settings import FeedSettings
from city.net import check_origin, check_url, is_loopback, join_address, reached_at
from city.server_settings import Port, ServerSettings, with_driver
from city.severity import Severity

Unknown = Literal["accept", "flag", "quarantine"]
"""What happens to events with an id that nobody has announced: nothing, a lower score of the data's quality, or the
quarantine."""
CHECKOUT = Path(__file__).resolve().parents[1]


class Settings(ServerSettings, ColdSettings, FeedSettings):
    """The folders of the platform's state, and the addresses and limits of its parts.

    .env.example documents the fields for people.
    """

    model_config = SettingsConfigDict(
        env_prefix="CITY_",
        env_file=CHECKOUT / ".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an input may be a secret
    )

    home: Path = Field(CHECKOUT / ".city", description="the one folder that holds all state")
    cache: Path | None = Field(None, description="downloaded jars and computed files; default <home>/cache")
    host: str = Field("127.0.0.1", description="the address that the city's own server binds to, and nothing else")

    dagster_host: str = Field("127.0.0.1", description="the Dagster UI's address; it has no password")
    dagster_port: Port = 3000

    serve_port: Port = 8000
    auth: Literal["auto", "on"] = Field(
        "auto", description="auto: keys are required unless the server binds to loopback"
    )
    jwt_secret: SecretStr | None = Field(
        None, description="signs the tokens of this city; default: created once, in CITY_HOME"
    )
    jwt_public_key: Path | None = Field(None, description="a PEM file: tokens of another issuer are accepted too")
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    rate_limit: float = Field(0.0, ge=0, description="requests a second of one address without a key; 0: no limit")
    failed_keys_a_minute: float = Field(30.0, ge=0, description="unknown keys of one address; 0: no limit")
    public_url: str | None = Field(None, description="where people reach the server, such as https://city.example.org")
    trusted_proxies: list[str] = Field(
        ["127.0.0.1", "::1"], description="proxies whose X-Forwarded-For and -Proto are trusted"
    )
    max_body_mb: float = Field(20.0, gt=0, description="the largest batch of predictions; other requests may have 1 MB")
    body_seconds: float = Field(10.0, gt=0, description="the time limit for receiving a request's body")
    cors_origins: list[str] = Field(
        [], description="origins whose pages may call the API, such as https://maps.example.org"
    )
    tls_cert: Path | None = Field(None, description="a PEM file: HTTPS, with tls_key")
    tls_key: Path | None = None
    map_style_url: str | None = Field(None, description="a MapLibre style with online tiles, for the dashboard")

    domains: list[str] = Field([], description="the domains to stream and to simulate; default: all")
    extra_domains: list[Path] = Field([], description="folders that hold further domains, beside city_assets/")
    maven_url: str | None = Field(None, description="a mirror of Maven Central to fetch the jars from")
    tlc_url: str = Field(
        "https://d37ci6vzurychx.cloudfront.net/trip-data", description="where `city data tlc` fetches months from"
    )

    data_dir: Path | None = Field(None, description="real data for tests and benchmarks; default ../shared/data")
    engine: Literal["polars", "spark"] = Field("polars", description="the engine that runs the tables' transforms")
    spark_master: str = Field("local[2]", description="the Spark cluster's address, where the engine is spark")
    spark_host: str = Field("127.0.0.1", description="the driver's address, which a Spark cluster must reach")
    spark_memory: str = Field("4g", description="memory of Spark's driver")
    spark_partitions: int = Field(2, gt=0, description="partitions of Spark's shuffles: its cores, or some more")
    timezone: str = Field("America/New_York", description="the time zone of local days and hours")
    country: str = Field("US", description="the country of the public holidays (a code of the package holidays)")

    promote: Literal["automatic", "manual"] = Field("automatic", description="how a better challenger is promoted")
    alert_rules: Path | None = Field(None, description="a TOML file of alert rules, instead of the default rules")
    alert_escalate_minutes: float = Field(
        30.0, gt=0, description="the severity of an unacknowledged alarm rises after this"
    )
    alert_retention_days: int = Field(
        30, gt=0, description="closed alarms, the history of alarms and sent messages older than this are deleted"
    )
    disk_free_gb: float = Field(
        2.0, gt=0, description="less free disk space than this is an alarm, less than twice this a warning"
    )
    alert_domains_after: float = Field(
        24.0, ge=0, description="hours after the first start before domains raise alarms"
    )
    alert_webhook_url: SecretStr | None = Field(None, description="where alerts are posted, as JSON")
    alert_webhook_least: Severity = Field("info", description="the least severity that is sent there")
    alert_slack_url: SecretStr | None = Field(None, description="a Slack incoming webhook")
    alert_slack_least: Severity = Field("warning", description="the least severity that is sent there")
    alert_pagerduty_key: SecretStr | None = Field(None, description="an integration key of PagerDuty's Events API v2")
    alert_pagerduty_url: str = "https://events.pagerduty.com/v2/enqueue"
    alert_pagerduty_least: Severity = Field("error", description="the least severity that is sent there")
    alert_email_to: list[str] = Field([], description="the recipients of alerts by e-mail")
    alert_email_least: Severity = Field("warning", description="the least severity that is sent there")
    alert_email_from: str = "city@localhost"
    smtp_address: str | None = Field(None, description="host:port of the SMTP server")
    smtp_tls: bool = Field(True, description="use STARTTLS; turn it off only for a server on this machine")
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    alert_sms_url: SecretStr | None = Field(None, description="an SMS gateway's URL, which gets {to, text} as JSON")
    alert_sms_to: str | None = None
    alert_sms_least: Severity = Field("error", description="the least severity that is sent there")

    batch_rows: int = Field(100_000, gt=0, description="a micro-batch is committed at this many events")
    latency_seconds: float = Field(
        1.0, ge=0.1, le=60, description="the promised 95th percentile from an event to QuestDB and to its features"
    )
    report_seconds: float = Field(30.0, gt=0, description="how often the stream's rows are reported to the asset graph")
    gather_seconds: float = Field(
        300.0, ge=0, description="low-rate topics: messages of this long are gathered into one run"
    )
    label_days: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="by model, the days within which an outcome is reported; default: as declared"
    )
    unknown_ids: dict[str, Unknown] = Field(
        {}, description="by contract, what happens to events with ids that nobody announced; default: as declared"
    )
    history_days: int = Field(14, ge=0, le=90, description="days of simulated history that a new city gets")
    stream_hours: float = Field(24.0, gt=0, description="a streaming run of Dagster is replaced after this")
    run_retention_days: int = Field(7, gt=0, description="ended Dagster runs older than this are deleted")
    warm_days: int = Field(400, ge=1, description="bronze older than this goes to cold storage")
    vacuum_hours: int = Field(2, ge=1, description="files that compaction replaced are kept this long")

    @field_validator("home", "cache")
    @classmethod
    def _check_folder(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()
        for part in (path, *path.parents):
            try:
                is_other = part.exists() and not part.is_dir()
            except OSError as error:
                raise ValueError(f"{part}: {error.strerror}") from None
            if is_other:
                raise ValueError(f"{part} is not a folder")
        return path

    @field_validator("public_url")
    @classmethod
    def _check_origin(cls, value: str | None) -> str | None:
        if value:
            check_origin(value)
        return value

    @field_validator("alert_webhook_url", "alert_slack_url", "alert_sms_url", "alert_pagerduty_url")
    @classmethod
    def _check_post_url(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        if value:
            check_url(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    @field_validator("tls_cert", "tls_key", "jwt_public_key")
    @classmethod
    def _check_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        if value is not None and info.field_name == "tls_cert":
            check_certificate(value)
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("CITY_TLS_CERT and CITY_TLS_KEY belong together")
        return self

    @field_validator("extra_domains")
    @classmethod
    def _check_folders(cls, value: list[Path]) -> list[Path]:
        folders = [folder.expanduser().absolute() for folder in value]
        try:
            missing = [folder for folder in folders if not folder.is_dir()]
        except OSError as error:
            raise ValueError(f"{error.filename}: {error.strerror}") from None
        if missing:
            raise ValueError(f"there is no folder {missing[0]}")
        return folders

    @model_validator(mode="after")
    def _check_cold_engine(self) -> "Settings":
        if self.is_cold_on_s3 and self.engine == "spark":
            raise ValueError("CITY_COLD on S3 is read by CITY_ENGINE=polars only; for spark use a folder")
        return self

    @field_validator("country")
    @classmethod
    def _check_country(cls, value: str) -> str:
        if value == cls.model_fields["country"].default:
            return value
        import holidays  # 10 MB of memory, which most processes do not need

        if value not in holidays.list_supported_countries(include_aliases=True):
            raise ValueError(f"the package holidays has no country {value!r}; use a code such as US or DE")
        return value

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError):
            raise ValueError(f"no time zone {value!r}; such as Europe/Berlin") from None
        return value

    @property
    def data(self) -> Path:
        """The folder of real data for tests and benchmarks."""
        return self.data_dir or CHECKOUT.parent / "shared" / "data"

    @property
    def lake(self) -> Path:
        """The folder of the lake."""
        return self.home / "lake"

    @property
    def cold_path(self) -> str:
        """The folder of cold storage, or its URL on S3, without a slash at its end."""
        return (self.cold or str(self.home / "cold")).rstrip("/")

    @property
    def run(self) -> Path:
        """The folder of files that describe what runs now: process ids, states and reports."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """The folder of the parts' logs."""
        return self.home / "logs"

    @property
    def cache_folder(self) -> Path:
        """The folder of what is downloaded or computed once."""
        return self.cache or self.home / "cache"

    @property
    def alerts_store(self) -> str:
        """The SQLAlchemy URL of the alarms."""
        return (
            with_driver(self.alerts_url.get_secret_value())
            if self.alerts_url
            else f"sqlite:///{self.home}/alerts/alerts.db"
        )

    def is_active(self, domain: str) -> bool:
        """Returns whether the platform streams and simulates the domain."""
        return not self.domains or domain in self.domains

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the city's server. Others can through a proxy with a public address."""
        public = urlsplit(self.public_url or "").hostname
        return is_loopback(self.host) and (public is None or is_loopback(public))

    @property
    def wants_keys(self) -> bool:
        """Whether requests to the city's server need a key."""
        return self.auth == "on" or not self.is_local

    @property
    def serve(self) -> str:
        """The URL of the city's server from this machine."""
        return f"{'https' if self.tls_cert else 'http'}://{join_address(reached_at(self.host), self.serve_port)}"

    @property
    def dagster(self) -> str:
        """The address (host:port) of the Dagster UI."""
        return join_address(reached_at(self.dagster_host), self.dagster_port)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Returns the settings of this process. Tests clear the cache when they change the environment."""
    return Settings()
