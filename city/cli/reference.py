"""city reference: lists, exports and imports the tables that people edit."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The tables that people edit: list, export and import them.")

_Name = Annotated[str, typer.Argument(help="as `city reference list` shows it")]


@app.command("list")
def listed() -> None:
    """List the reference tables, with their descriptions and row counts."""
    from rich.table import Table

    from city.lake.reference import read, reference_tables
    from city.settings import settings
    from city.stack.terminal import Terminal

    shown = Table("table", "rows", "what it is", box=None)
    for table in reference_tables():
        shown.add_row(table.name, str(read(settings().lake, table).height), table.description)
    Terminal().print(shown)


@app.command()
def export(
    name: _Name,
    file: Annotated[Path | None, typer.Argument(help="the CSV file to write; default: print the table")] = None,
) -> None:
    """Write a table as CSV, to be edited and imported again."""
    from city.lake.reference import read, reference_table
    from city.settings import settings

    text = read(settings().lake, reference_table(name)).write_csv()
    if file is None:
        print(text, end="")
    else:
        file.write_text(text)


@app.command("import")
def imported(
    name: _Name,
    file: Annotated[Path, typer.Argument(help="a CSV file with the table's columns", exists=True, dir_okay=False)],
) -> None:
    """Replace a table's rows by those of a CSV file. If a row is invalid, nothing changes."""
    import polars as pl

    from city.lake.reference import reference_table, update
    from city.settings import settings
    from city.tables.model import TableError

    try:
        rows = pl.read_csv(file, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise TableError(f"{file.name} is no CSV file with a header ({reason}): nothing was changed") from None
    count = update(settings().lake, reference_table(name), lambda _: rows, f"imported from {file.name}")
    typer.echo(f"{name}: {count:,} rows")
