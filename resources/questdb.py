"""The QuestDB resource, for assets and checks that read live tables."""

from typing import Any

import dagster as dg

from city import questdb


class QuestDBResource(dg.ConfigurableResource):
    """A QuestDB server at `address` (host:port of its HTTP server)."""

    address: str

    def rows(self, sql: str) -> list[list[Any]]:
        """Runs an SQL statement and returns its rows."""
        return questdb.rows(self.address, sql)
