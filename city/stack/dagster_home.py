"""Dagster's home under CITY_HOME: the checkout's dagster.yaml, and PostgreSQL as storage where that is set."""

from pathlib import Path

from city.settings import CHECKOUT, Settings

_POSTGRES = """
storage:
  postgres:
    postgres_url:
      env: CITY_DAGSTER_POSTGRES_URL
"""


def prepare_dagster_home(config: Settings, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    text = (CHECKOUT / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text(text + (_POSTGRES if config.dagster_postgres_url else ""))
