"""The settings of the feeds: the URLs that sources are fetched from."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from city.net import check_url


class FeedSettings(BaseSettings):
    """The URLs of feeds, by the name of their source, and the headers of their requests."""

    feeds: dict[str, SecretStr] = Field({}, description="by source, the URL that it is fetched from")
    feed_headers: dict[str, SecretStr] = Field({}, description="by source, a header of its requests: `name: value`")
    feed_seconds: float = Field(15.0, ge=1, description="how often feeds are fetched")

    @field_validator("feeds")
    @classmethod
    def _check_feeds(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for source, url in value.items():
            try:
                check_url(url.get_secret_value())
            except ValueError as error:
                raise ValueError(f"the URL of {source}: {error}") from None
        return value

    @field_validator("feed_headers")
    @classmethod
    def _check_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for source, header in value.items():
            name, colon, content = header.get_secret_value().partition(":")
            if not (name.strip() and colon and content.strip()):
                raise ValueError(f"the header of {source} is not `name: value`; such as `X-API-Key: …`")
        return value
