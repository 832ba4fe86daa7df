"""The published schemas at a registry that speaks the Confluent REST API, as Apicurio 3 does at /apis/ccompat/v7."""

import json
from typing import Any

import requests

from city.contracts.json_schema import json_schema
from city.contracts.model import Contract, ContractError

_SECONDS = 10
_TYPE = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


class SchemaRegistry:
    """A registry at `url`; a contract's subject is `<topic>-value`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def publish(self, contract: Contract) -> int:
        """Registers the contract's schema, if it is not there yet, and its compatibility; returns the schema's id.

        Raises ContractError when the registry finds it incompatible, or is away.
        """
        subject = subject_of(contract)
        body = {"schemaType": "JSON", "schema": json.dumps(json_schema(contract), ensure_ascii=False)}
        self._call("PUT", f"/config/{subject}", {"compatibility": contract.compatibility.upper()})
        return int(self._call("POST", f"/subjects/{subject}/versions", body)["id"])

    def latest(self, contract: Contract) -> dict[str, Any]:
        """The newest schema of the contract's subject."""
        found = self._call("GET", f"/subjects/{subject_of(contract)}/versions/latest")
        schema: dict[str, Any] = json.loads(found["schema"])
        return schema

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = requests.request(method, self._url + path, json=body, headers=_TYPE, timeout=_SECONDS)
        except requests.RequestException as error:
            raise ContractError(
                f"no schema registry answers at {self._url} (CITY_SCHEMA_REGISTRY_URL): {error}"
            ) from error
        if not answer.ok:
            raise ContractError(
                f"the schema registry refuses {method} {path}: {answer.status_code} {answer.text[:500]}"
            )
        found: dict[str, Any] = answer.json()
        return found


def subject_of(contract: Contract) -> str:
    return f"{contract.topic}-value"
