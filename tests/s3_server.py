"""An S3 server for tests (moto), which checks logins and what a user may do."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from city.net import accepts
from city.stack.embedded import free_ports
from tests.live import until

BUCKET, REGION = "city", "eu-central-1"
ABSENT = "moto is not installed: pip install 'moto[server]'"


@dataclass(frozen=True)
class TestS3:
    """The endpoint of the server, and three logins: of a user who may do all, of one who may read, of one who may not.

    Each is an access key's id and its secret.
    """

    __test__ = False

    endpoint: str
    user: tuple[str, str]
    reader: tuple[str, str]
    stranger: tuple[str, str]

    def settings(self, login: tuple[str, str] | None = None) -> dict[str, str]:
        """The settings of cold storage on this server."""
        key, secret = login or self.user
        return {
            "cold": f"s3://{BUCKET}/cold",
            "cold_endpoint": self.endpoint,
            "cold_region": REGION,
            "cold_access_key": key,
            "cold_secret_key": secret,
        }


def is_installed() -> bool:
    """Whether the server can be started."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask", "boto3"))


@contextlib.contextmanager
def s3_server(
    folder: Path, certificate: tuple[Path, Path] | None = None, authority: Path | None = None
) -> Iterator[TestS3]:
    """A server with one bucket. With a `certificate` and its key, over TLS; `authority` is who signed it."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    argv += ["-s", "-c", str(certificate[0]), "-k", str(certificate[1])] if certificate else []
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    try:
        until(lambda: accepts("127.0.0.1", port), 60)
        yield _fill(endpoint, str(authority) if authority else True)
    finally:
        process.terminate()
        process.wait(10)


def _fill(endpoint: str, verify: str | bool) -> TestS3:
    """Makes the bucket and the users. From then on the server checks each request."""
    import boto3  # of the package moto

    login = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
    server: dict[str, Any] = {"endpoint_url": endpoint, "region_name": REGION, "verify": verify, **login}
    iam = boto3.client("iam", **server)
    boto3.client("s3", **server).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    keys = {}
    for name, actions in (("city", ["s3:*"]), ("reader", ["s3:Get*", "s3:List*"]), ("stranger", [])):
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
        if actions:
            allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
            iam.put_user_policy(UserName=name, PolicyName="storage", PolicyDocument=policy)
    plain = {"content-type": "text/plain"}
    reset = requests.post(f"{endpoint}/moto-api/reset-auth", "0", headers=plain, timeout=10, verify=verify)
    reset.raise_for_status()
    return TestS3(endpoint, keys["city"], keys["reader"], keys["stranger"])
