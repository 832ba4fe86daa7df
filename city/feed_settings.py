"""The settings of the feeds: the URLs that sources are fetched from."""

import re

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from city.net import check_url

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


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
            if not _HEADER.fullmatch(header.get_secret_value()):
                raise ValueError(f"the header of {source} is not `name: value` in ASCII, such as `X-API-Key: 1234`")
        return value
