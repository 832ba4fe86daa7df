"""The `city` command, called as a person calls it."""

import pytest
from typer.testing import CliRunner

from city.cli.errors import explain
from city.cli.main import app


def city(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fails(*words: str) -> str:
    """What a person is told."""
    with pytest.raises(Exception) as error:  # noqa: PT011
        CliRunner().invoke(app, list(words), catch_exceptions=False)
    said = explain(error.value)
    assert said is not None, repr(error.value)
    return said
