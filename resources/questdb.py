"""The QuestDB resource, for checks that read the hot tier."""

from collections.abc import Mapping
from dataclasses import replace

import dagster as dg
import polars as pl

from city import questdb
from city.settings import settings


class QuestDBResource(dg.ConfigurableResource):
    """A QuestDB server at `address` (host:port of its HTTP server)."""

    address: str

    def frame(self, sql: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Runs a query and returns its rows; `schema` has the name and type of each column, in order.

        Raises QuestDBError where the query is refused, and requests.RequestException where the server is unavailable.
        """
        # The login is not in the resource, because Dagster shows its configuration.
        server = replace(settings().questdb, address=self.address)
        return pl.DataFrame(questdb.rows(server, sql), schema=schema, orient="row")
