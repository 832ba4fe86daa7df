"""Great Expectations suites that follow from a contract, run on a day's rows and on what was measured of them.

Imports Great Expectations only when a suite is made: that takes seconds and 280 MB.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema

SAMPLE = 20_000  # rows of a day that the row by row expectations look at
ROWS, DAY = "rows", "day"
# The most of each measure that a good day has.
LIMITS = {
    "malformed_share": 0.002,
    "out_of_range_share": 0.002,
    "duplicate_share": 0.002,
    "slow_share": 0.01,
    "out_of_order_share": 0.01,
    "missing_share": 0.005,
    "unknown_share": 0.0,
    "stuck_share": 0.01,
    "drifting_share": 0.02,
}


@dataclass(frozen=True)
class Judged:
    """One expectation's outcome."""

    name: str
    passed: bool
    blocking: bool
    detail: dict[str, Any] = field(default_factory=dict)


def row_expectations(contract: Contract) -> Iterator[tuple[str, Any]]:
    """Of each row: the schema, completeness, ranges and choices of each field, and one row for a key and time."""
    import great_expectations.expectations as gxe

    names = list(bronze_schema(contract))
    yield "schema", gxe.ExpectTableColumnsToMatchSet(column_set=names, exact_match=True)
    for f in contract.fields:
        if not f.nullable:
            yield f"{f.name}_complete", gxe.ExpectColumnValuesToNotBeNull(column=f.name)
        if f.minimum is not None or f.maximum is not None:
            expected = gxe.ExpectColumnValuesToBeBetween(column=f.name, min_value=f.minimum, max_value=f.maximum)
            yield f"{f.name}_in_range", expected
        if f.choices:
            yield f"{f.name}_known", gxe.ExpectColumnValuesToBeInSet(column=f.name, value_set=list(f.choices))
        elif f.pattern:
            yield f"{f.name}_spelled", gxe.ExpectColumnValuesToMatchRegex(column=f.name, regex=f"^(?:{f.pattern})$")
    if quantities := contract.quantities:
        for q in quantities.of:
            yield (
                f"{q.name}_in_range",
                gxe.ExpectColumnValuesToBeBetween(
                    column=quantities.value,
                    min_value=q.minimum,
                    max_value=q.maximum,
                    condition_parser="pandas",
                    row_condition=f'{quantities.by} == "{q.name}"',
                ),
            )
    for rule in contract.rules:
        yield f"rule_{rule.name}", gxe.ExpectColumnValuesToBeInSet(column=f"_rule_{rule.name}", value_set=[True])
    yield "coordinates_once", gxe.ExpectCompoundColumnsToBeUnique(column_list=["_partition", "_offset"])


def day_expectations(contract: Contract) -> Iterator[tuple[str, Any]]:
    """Of the day as a whole, from its measures."""
    import great_expectations.expectations as gxe

    yield "not_empty", gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=1)
    for measure, most in LIMITS.items():
        name = measure.removesuffix("_share")
        yield name, gxe.ExpectColumnValuesToBeBetween(column=measure, min_value=0, max_value=most)


def sample(bronze: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """At most some SAMPLE of a day's `rows` bronze rows, chosen by their offset: rows of the same offset, which are a
    fault, are taken or left together."""
    share = -(-rows // SAMPLE) or 1
    return bronze.filter(pl.col("_offset").hash(0) % share == 0).collect(engine="streaming")


def judge(contract: Contract, rows: pl.DataFrame, day: pl.DataFrame, docs: Path | None = None) -> list[Judged]:
    """Runs both suites; `rows` is a `sample` of the day's bronze rows, `day` their measures. With `docs`, the results
    are also written there as Data Docs (index.html)."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    if docs is not None:
        site = {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        shutil.rmtree(docs, ignore_errors=True)  # a page a dataset, of its newest day: docs of thousands hang
        for name in list(context.get_site_names()):
            context.delete_data_docs_site(name)
        context.add_data_docs_site(site_name="city", site_config=site)
    source = context.data_sources.add_pandas("city")
    held = rows.with_columns(
        pl.sql_expr(rule.sql).fill_null(False).alias(f"_rule_{rule.name}") for rule in contract.rules
    )
    judged: list[Judged] = []
    for what, frame, expectations in (
        (ROWS, held, list(row_expectations(contract))),
        (DAY, day, list(day_expectations(contract))),
    ):
        if frame.is_empty() and what == ROWS:
            continue
        judged += _run(context, source, f"{contract.name} {what}", frame, expectations, what == ROWS)
    if docs is not None:
        context.build_data_docs()
    return judged


def _run(
    context: Any,
    source: Any,
    name: str,
    frame: pl.DataFrame,
    expectations: list[tuple[str, Any]],
    blocking: bool,
) -> list[Judged]:
    import great_expectations as gx

    names = [label for label, _ in expectations]
    suite = gx.ExpectationSuite(name=name)
    extra = [column for column in frame.columns if column.startswith("_rule_")]
    for label, expectation in expectations:
        if label == "schema" and extra:
            expectation.column_set = [*expectation.column_set, *extra]
        expectation.meta = {"check": label}
        suite.add_expectation(expectation)
    suite = context.suites.add(suite)
    batch = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    # Without a checkpoint, whose actions would render each result a second time, and also where no docs are wanted.
    result = definition.run(batch_parameters={"dataframe": frame.to_pandas()})
    return [_judged(one, names, blocking) for one in result.results]


def _judged(result: Any, names: list[str], blocking: bool) -> Judged:
    label = result.expectation_config.meta["check"]
    assert label in names
    wanted = ("observed_value", "element_count", "unexpected_count", "unexpected_percent", "partial_unexpected_list")
    detail = {name: result.result[name] for name in wanted if result.result.get(name) is not None}
    return Judged(label, bool(result.success), blocking, detail)
