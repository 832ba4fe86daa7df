"""city sql: runs a query on QuestDB."""

from typing import Annotated

import typer


def command(query: Annotated[str, typer.Argument(help="such as: SELECT * FROM sensors LIMIT -10")]) -> None:
    """Run SQL on QuestDB and show the rows."""
    from rich.table import Table

    from city.questdb import execute
    from city.settings import settings
    from city.stack.terminal import Terminal

    response = execute(settings().questdb, query, seconds=60)
    if "columns" not in response:
        print("ok")
        return
    table = Table(*(column["name"] for column in response["columns"]))
    for row in response["dataset"]:
        table.add_row(*(str(value) for value in row))
    Terminal().print(table)
