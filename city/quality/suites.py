"""Judges the expectations of a day by Great Expectations, and writes documents of the results (Data Docs).

Imports Great Expectations only when a day is judged, because the import takes seconds and 250 MB.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from city.contracts.model import Contract
from city.quality.expectations import (
    Between,
    Columns,
    Expectation,
    ExpectationResult,
    InSet,
    MatchesRegex,
    NotNull,
    Unique,
    of_day,
    of_rows,
    with_rules,
)

ROWS, DAY = "rows", "day"


def judge(contract: Contract, rows: pl.DataFrame, day: pl.DataFrame, docs: Path) -> list[ExpectationResult]:
    """Judges bronze `rows`, if there are any, and `day`, the measures of their day.

    Writes a page about each to the folder `docs` (index.html), and deletes what was there before.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    site = {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    shutil.rmtree(
        docs, ignore_errors=True
    )  # one page per dataset, of one day only: Data Docs hang at thousands of pages
    for name in list(context.get_site_names()):
        context.delete_data_docs_site(name)
    context.add_data_docs_site(site_name="city", site_config=site)
    source = context.data_sources.add_pandas("city")
    judged: list[ExpectationResult] = []
    if rows.height:
        judged += _run_suite(
            context, source, f"{contract.name} {ROWS}", with_rules(contract, rows), of_rows(contract), True
        )
    judged += _run_suite(context, source, f"{contract.name} {DAY}", day, of_day(), False)
    context.build_data_docs()
    return judged


def _run_suite(
    context: Any, source: Any, name: str, frame: pl.DataFrame, expectations: Iterable[Expectation], blocking: bool
) -> list[ExpectationResult]:
    import great_expectations as gx

    suite = gx.ExpectationSuite(name=name)
    for expectation in expectations:
        suite.add_expectation(_translate_expectation(expectation))
    suite = context.suites.add(suite)
    batch = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    # No checkpoint is used: its actions would render each result a second time.
    result = definition.run(batch_parameters={"dataframe": frame.to_pandas()})
    return [_convert_result(outcome, blocking) for outcome in result.results]


def _translate_expectation(expectation: Expectation) -> Any:
    import great_expectations.expectations as gxe

    meta = {"check": expectation.name}
    match expectation:
        case Columns(columns=columns):
            return gxe.ExpectTableColumnsToMatchSet(column_set=list(columns), exact_match=True, meta=meta)
        case NotNull(column=column):
            return gxe.ExpectColumnValuesToNotBeNull(column=column, meta=meta)
        case Between(column=column, low=low, high=high, where=where):
            within: dict[str, Any] = {"column": column, "min_value": low, "max_value": high, "meta": meta}
            if where:
                within |= {"condition_parser": "pandas", "row_condition": f'{where[0]} == "{where[1]}"'}
            return gxe.ExpectColumnValuesToBeBetween(**within)
        case InSet(column=column, values=values):
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(values), meta=meta)
        case MatchesRegex(column=column, pattern=pattern):
            return gxe.ExpectColumnValuesToMatchRegex(column=column, regex=f"^(?:{pattern})$", meta=meta)
        case Unique(columns=columns):
            return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(columns), meta=meta)


def _convert_result(result: Any, blocking: bool) -> ExpectationResult:
    names = ("observed_value", "element_count", "unexpected_count", "unexpected_percent", "partial_unexpected_list")
    detail = {name: result.result[name] for name in names if result.result.get(name) is not None}
    return ExpectationResult(result.expectation_config.meta["check"], bool(result.success), blocking, detail)
