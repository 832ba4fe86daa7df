"""The QuestDB resource, for checks that read the hot tier."""

from collections.abc import Mapping

import dagster as dg
import polars as pl

from city import questdb


class QuestDBResource(dg.ConfigurableResource):
    """A QuestDB server at `address` (host:port of its HTTP server)."""

    address: str

    def frame(self, sql: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Runs a query and returns its rows; `schema` has the name and type of each column, in order.

        Raises QuestDBError where the query is refused, and requests.RequestException where the server is unavailable.
        """
        return pl.DataFrame(questdb.rows(self.address, sql), schema=schema, orient="row")
