"""Checks certificate files before a server is asked with them."""

from datetime import UTC, datetime
from pathlib import Path


def check_certificate(path: Path) -> None:
    """Raises ValueError for a file that is no PEM certificate, or whose first certificate has expired."""
    from cryptography import x509  # most processes have no certificates

    try:
        (certificate, *_) = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ValueError(f"the certificate {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")
