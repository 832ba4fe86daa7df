"""city build: builds derived tables together with their sources."""

from datetime import datetime
from typing import Annotated

import typer


def command(
    names: Annotated[list[str], typer.Argument(help="such as gold/trip_flows_daily, or gold for all of a layer")],
    first: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="the first local day")],
    last: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="the last local day")],
) -> None:
    """Rebuild days of tables, and of the tables upstream of them."""
    from datetime import timedelta

    from city.lake.lakehouse import lakehouse
    from city.settings import settings
    from city.stack.terminal import Terminal
    from city.tables.registry import select_tables

    console = Terminal()
    lake = lakehouse(settings()).pinned()
    days = [first.date() + timedelta(days=n) for n in range((last - first).days + 1)]
    if not days:
        raise ValueError(f"--last {last.date()} is before --first {first.date()}")
    for table in select_tables(names):
        with console.status(table.id):
            built = lake.build(table, days, full=True, progress=lambda line: console.log(line))
        console.print(f"{table.id}: {built.rows:,} rows in {built.seconds:.1f} s")
