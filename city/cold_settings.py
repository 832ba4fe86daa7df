"""The settings of cold storage: its place, and the login of S3."""

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from city.net import check_url
from city.s3 import S3Server

_S3 = "s3://"


class ColdSettings(BaseSettings):
    """The place of cold storage: a folder, or a path on S3 with its endpoint, region and login."""

    cold: str | None = Field(None, description="a folder, or s3://bucket/path; default <home>/cold")
    cold_endpoint: str = Field("", description="the URL of an S3 server that is not Amazon's")
    cold_region: str = Field("us-east-1", description="the region of the bucket")
    cold_access_key: SecretStr | None = Field(
        None, description="the id of the access key; default: AWS's own variables, or the machine's role"
    )
    cold_secret_key: SecretStr | None = Field(None, description="the secret access key")
    cold_session_token: SecretStr | None = Field(None, description="the token of temporary credentials")

    @field_validator("cold")
    @classmethod
    def _check_cold(cls, value: str | None) -> str | None:
        scheme, separator, rest = (value or "").partition("://")
        if separator and scheme != "s3":
            raise ValueError(f"got {scheme}://…; expected a folder, or s3://bucket/path")
        if separator and (not rest.strip("/") or rest.startswith("/")):
            raise ValueError("the bucket is missing; expected s3://bucket/path")
        if separator and any(character in rest for character in "@?#"):
            raise ValueError("expected s3://bucket/path alone; the login is in CITY_COLD_ACCESS_KEY and _SECRET_KEY")
        return value

    @field_validator("cold_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value:
            check_url(value)
            if "@" in value:
                raise ValueError("a login is not part of it: use CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_login(self) -> "ColdSettings":
        names = ("cold_endpoint", "cold_access_key", "cold_secret_key", "cold_session_token")
        given = [f"CITY_{name.upper()}" for name in names if getattr(self, name)]
        if given and not self.is_cold_on_s3:
            raise ValueError(f"{', '.join(given)}: of cold storage on S3; set CITY_COLD to s3://bucket/path")
        if bool(self.cold_access_key) != bool(self.cold_secret_key):
            raise ValueError("CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY (or …_FILE) belong together")
        return self

    @property
    def is_cold_on_s3(self) -> bool:
        """Whether cold storage is on S3."""
        return (self.cold or "").startswith(_S3)

    @property
    def cold_server(self) -> S3Server | None:
        """The S3 server of cold storage; None where cold storage is a folder."""
        if not self.is_cold_on_s3:
            return None
        secrets = (self.cold_access_key, self.cold_secret_key, self.cold_session_token)
        return S3Server(self.cold_endpoint, self.cold_region, *(s.get_secret_value() if s else "" for s in secrets))
