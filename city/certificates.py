"""Checks certificate files before the city connects with them."""

from datetime import UTC, datetime
from pathlib import Path


def check_certificate(path: Path) -> None:
    """Raises ValueError for a file that has no certificate in PEM."""
    _read_expiries(path)


def find_expiry(path: Path, is_authority: bool = False) -> datetime | None:
    """Returns when the certificate of a file expired; None where it is valid.

    A file of authorities may have several: it has expired when all of them have. Raises ValueError as
    `check_certificate` does.
    """
    expiries = _read_expiries(path)
    last = max(expiries) if is_authority else expiries[0]
    return last if last < datetime.now(UTC) else None


def _read_expiries(path: Path) -> list[datetime]:
    from cryptography import x509  # most processes have no certificates

    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    return [certificate.not_valid_after_utc for certificate in certificates]
