"""city sql: a query to QuestDB."""

from typing import Annotated

import typer


def command(query: Annotated[str, typer.Argument(help="such as: SELECT * FROM sensors LIMIT -10")]) -> None:
    """Run SQL on QuestDB and show the rows."""
    from rich.table import Table

    from city.questdb import execute
    from city.settings import settings
    from city.stack.terminal import Terminal

    answer = execute(settings().questdb, query, seconds=60)
    if "columns" not in answer:
        print("ok")
        return
    table = Table(*(column["name"] for column in answer["columns"]))
    for row in answer["dataset"]:
        table.add_row(*(str(value) for value in row))
    Terminal().print(table)
