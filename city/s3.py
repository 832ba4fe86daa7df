"""Tells clients how to reach S3 storage, and explains its errors by the settings that mend them."""

import re
from dataclasses import dataclass, field

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_LOGIN_CODES = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "ExpiredToken",
        "AuthFailure",
        "InvalidClientTokenId",
    }
)
"""The error codes of a login that S3 refuses (Amazon S3 API Reference, "List of error codes")."""
_REGION_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_UNKNOWN_AUTHORITY = "UnknownIssuer"
"""The word of rustls, which deltalake and Polars use, for a certificate whose authority is not trusted."""
_OFF_LINE = ("error sending request", "timed out", "connection closed")


def is_s3_error(error: BaseException) -> bool:
    """Returns whether an error of deltalake or Polars comes from a request to S3."""
    text = str(error)
    return any(sign in text for sign in ("S3 error", "Error performing", "<Code>"))


@dataclass(frozen=True)
class S3Server:
    """An S3 server, and what a client needs to log in. Its text has no secret.

    Without an `endpoint` it is Amazon's. Without an `access_key`, the client uses the environment's AWS_ variables, or
    the role of the machine.
    """

    endpoint: str = ""
    region: str = "us-east-1"
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.endpoint or f"Amazon S3 in {self.region}"

    def options(self) -> dict[str, str]:
        """Returns the storage options of deltalake and Polars. They have the secrets.

        A commit is a conditional put, so two writers cannot make the same version. Without the limits of time, an
        endpoint that is away costs three minutes of retries.
        """
        options = {
            "AWS_REGION": self.region,
            "aws_conditional_put": "etag",
            "retry_timeout": "5s",
            "connect_timeout": "5s",
            "timeout": "60s",
        }
        if self.endpoint:
            options |= {"AWS_ENDPOINT_URL": self.endpoint}
        if self.endpoint.startswith("http://"):
            options |= {"AWS_ALLOW_HTTP": "true"}
        secrets = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return options | {name: value for name, value in secrets.items() if value}

    def explain(self, error: BaseException, url: str) -> str:
        """Returns an error in one line, with the setting that mends it. An answer of S3 may repeat the access key, so
        nothing of it is told but its code."""
        text = _COLOR.sub("", str(error))
        code = match.group(1) if (match := _CODE.search(text)) else None
        return f"cold storage {url} ({self}): {self._describe(text, code, url)}"

    def _describe(self, text: str, code: str | None, url: str) -> str:
        bucket = url.removeprefix("s3://").partition("/")[0]
        if "169.254.169.254" in text:
            return "no login: set CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY, or give the machine a role"
        if code in _LOGIN_CODES:
            return f"S3 refuses the login ({code}): check CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY"
        if code == "AccessDenied" or "403 Forbidden" in text:
            return (
                f"S3 refuses the access ({code or 'HTTP 403'}): let the user of CITY_COLD_ACCESS_KEY list, read, write "
                f"and delete in the bucket {bucket}"
            )
        if code == "NoSuchBucket":
            return f"there is no bucket {bucket}: create it, or correct CITY_COLD"
        if code in _REGION_CODES:
            return f"{code}: set CITY_COLD_REGION to the region of the bucket {bucket}"
        if code == "NotImplemented":
            return "this server has no conditional put (If-None-Match), which a commit needs: use one that has"
        if _UNKNOWN_AUTHORITY in text:
            return (
                "the authority of the server's certificate is not trusted: add it to the certificates of the machine, "
                "or to the PEM file with all trusted authorities that SSL_CERT_FILE names"
            )
        if "InvalidContentType" in text or "certificate" in text.lower():
            return (
                "no TLS with this endpoint: does CITY_COLD_ENDPOINT begin with the right one of https:// and http://?"
            )
        if self._is_away(text):
            reason = [line.strip(" ↳0123456789:") for line in text.splitlines() if line.strip()][-1]
            return f"no answer ({reason}): check CITY_COLD_ENDPOINT, and whether the server runs"
        return f"{code or 'its answer is not that of S3'}: check CITY_COLD and CITY_COLD_ENDPOINT"

    def refuses(self, error: BaseException) -> bool:
        """Returns whether S3 answered with an error. An endpoint that is away may come."""
        text = str(error)
        return not self._is_away(text) or "InvalidContentType" in text or _UNKNOWN_AUTHORITY in text

    def _is_away(self, text: str) -> bool:
        return any(sign in text.lower() for sign in _OFF_LINE)
