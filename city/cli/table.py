"""city table: shows the newest rows of a Delta table."""

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="such as vehicle_positions, or quarantine/sensors")],
    rows: Annotated[int, typer.Option(help="how many of the newest rows", min=1)] = 10,
) -> None:
    """Show a table's newest rows, its row count and its version."""
    import polars as pl

    from city.contracts.registry import contract_of
    from city.lake import ORDER, STRAYS, locate
    from city.lake.preview import preview_table
    from city.settings import settings
    from city.tables.registry import table_of, tables

    layer, _, table = name.rpartition("/")
    layer = layer or "bronze"
    declared = tables().get(f"{layer}/{table}")
    if declared is None and layer not in ORDER:
        declared = table_of(f"{layer}/{table}")
    if not declared and (layer, table) != ("quarantine", STRAYS):
        table = contract_of(table).name
    order = ([declared.time] if declared.time else []) if declared else ORDER[layer]
    path = locate(settings().lake, layer, table)
    if not path.exists():
        raise ValueError(f"there is nothing in {layer}/{table} yet" + (f": city build {table}" if declared else ""))
    preview = preview_table(path, rows, order)
    with pl.Config(tbl_rows=rows, tbl_cols=-1, fmt_str_lengths=40, tbl_hide_dataframe_shape=True):
        print(preview.frame)
    print(f"{preview.rows:,} rows, version {preview.version}, {preview.files} files")
