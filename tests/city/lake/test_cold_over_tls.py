"""Cold storage on an S3 server whose certificate is signed by a private authority."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from city.lake.location import ColdStorageError, Location
from city.s3 import S3Server
from tests import s3_server
from tests.s3_server import TestS3
from tests.secured import Authority

URI = f"s3://{s3_server.BUCKET}/tls"
WRITE = """
import sys
import polars as pl
from deltalake import write_deltalake
from city.lake.location import Location
from city.s3 import S3Server

location = Location(sys.argv[1], S3Server(*sys.argv[2:]))
write_deltalake(location.uri, pl.DataFrame({"a": [1, 2]}), storage_options=location.options)
print(pl.scan_delta(location.open()).collect().height)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "private")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TestS3]:
    if not s3_server.is_installed():
        pytest.skip(s3_server.ABSENT)
    with s3_server.s3_server(tmp_path_factory.mktemp("s3"), authority.sign("server"), authority.file) as server:
        yield server


def test_an_authority_that_is_not_trusted_is_named_with_the_fix(s3: TestS3) -> None:
    location = Location(URI, S3Server(s3.endpoint, s3_server.REGION, *s3.user))
    with pytest.raises(ColdStorageError, match="authority of the server's certificate is not trusted.*SSL_CERT_FILE"):
        location.exists()
    assert "SSL_CERT_FILE" in (location.refusal() or ""), "a server that is away may come, this one does not"


def test_the_authority_in_ssl_cert_file_is_trusted(s3: TestS3, authority: Authority) -> None:
    """As docs/lakehouse.md says. Another process, because the libraries read the variable once."""
    argv = [sys.executable, "-c", WRITE, URI, s3.endpoint, s3_server.REGION, *s3.user]
    trusting = os.environ | {"SSL_CERT_FILE": str(authority.file), "PYTHONPATH": str(Path.cwd())}
    result = subprocess.run(argv, env=trusting, capture_output=True, text=True, timeout=120, check=False)
    assert (result.stdout.strip(), result.returncode) == ("2", 0), result.stderr[-2000:]
