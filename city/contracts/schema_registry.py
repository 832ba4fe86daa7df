"""Publishes schemas to a schema registry with the Confluent REST API.

Apicurio 3 serves that API at /apis/ccompat/v7.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from city.contracts.json_schema import JsonSchema, json_schema
from city.contracts.model import Contract, ContractError

_SECONDS = 10
_TYPE = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


class SchemaRegistry:
    """Client of the schema registry at `url`. A contract's subject is `<topic>-value`.

    `login` is a user and a password; `ca` the certificate of the authority that signed the registry's.
    """

    def __init__(self, url: str, login: tuple[str, str] | None = None, ca: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._options: dict[str, Any] = ({"auth": login} if login else {}) | ({"verify": str(ca)} if ca else {})

    def publish(self, contract: Contract) -> int:
        """Registers the contract's compatibility, and its schema if it is not there yet. Returns the schema's id.

        Raises ContractError when the registry finds the schema incompatible, or is not reachable.
        """
        subject = subject_of(contract)
        body = {"schemaType": "JSON", "schema": json.dumps(json_schema(contract), ensure_ascii=False)}
        self._send_request("PUT", f"/config/{subject}", {"compatibility": contract.compatibility.upper()})
        return int(self._send_request("POST", f"/subjects/{subject}/versions", body)["id"])

    def latest(self, contract: Contract) -> JsonSchema:
        """Returns the newest schema of the contract's subject. Raises ContractError as `publish` does."""
        version = self._send_request("GET", f"/subjects/{subject_of(contract)}/versions/latest")
        schema: JsonSchema = json.loads(version["schema"])
        return schema

    def _send_request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        try:
            response = requests.request(
                method, self._url + path, json=body, headers=_TYPE, timeout=_SECONDS, **self._options
            )
        except requests.RequestException as error:
            raise ContractError(
                f"no schema registry answers at {self._url} (CITY_SCHEMA_REGISTRY_URL): {error}"
            ) from error
        if response.status_code in (401, 403):
            raise ContractError(
                f"the schema registry at {self._url} refuses the login (HTTP {response.status_code}): check "
                "CITY_SCHEMA_REGISTRY_USERNAME and CITY_SCHEMA_REGISTRY_PASSWORD"
            )
        if not response.ok:
            raise ContractError(
                f"the schema registry refuses {method} {path}: {response.status_code} {response.text[:500]}"
            )
        content: dict[str, Any] = response.json()
        return content


def subject_of(contract: Contract) -> str:
    """Returns the subject of the contract's schema at the registry."""
    return f"{contract.topic}-value"
