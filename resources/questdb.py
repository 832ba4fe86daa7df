"""QuestDB, for assets and checks that read what is live."""

from typing import Any

import dagster as dg

from city import questdb


class QuestDBResource(dg.ConfigurableResource):
    """A QuestDB at `address` (host:port of its HTTP server)."""

    address: str

    def rows(self, sql: str) -> list[list[Any]]:
        return questdb.rows(self.address, sql)
