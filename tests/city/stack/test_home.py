"""The state folder before a city starts in it."""

import shutil
from pathlib import Path

import pytest

from city.settings import Settings
from city.stack.history_plan import make_plan
from city.stack.home import check_home
from city.stack.part import CannotStart
from city.stack.supervisor import Supervisor


def test_a_home_that_cannot_be_written_to_is_named(config: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = config.model_copy(update={"home": tmp_path / "file" / "home"})
    with pytest.raises(CannotStart, match=r"CITY_HOME=.*file/home cannot be written to: .* Free space, or give"):
        Supervisor(wrong, []).check()


def test_a_new_city_needs_space_and_an_old_one_starts_without(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(config.home)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=120_000_000))
    with pytest.raises(CannotStart, match=r"has 120 MB left, and a new city needs 1,000 MB: free some, or point"):
        check_home(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000_000))
    check_home(config)
    with pytest.raises(CannotStart, match=r"with 14 days of history needs 5,200 MB: .* CITY_HISTORY_DAYS to fewer"):
        check_home(config.model_copy(update={"history_days": 14}))
    (config.lake / "bronze").mkdir(parents=True)
    check_home(config)


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(config: Settings, tmp_path: Path) -> None:
    home = tmp_path / "documents"
    for name in ("letters", "music", "photos", "taxes", ".hidden"):
        (home / name).mkdir(parents=True)
    with pytest.raises(
        CannotStart, match=r"folders of something else \(letters, music, photos, …\) and no city: point CITY_HOME"
    ):
        check_home(config.model_copy(update={"home": home}))
    assert {path.name for path in home.iterdir()} == {"letters", "music", "photos", "taxes", ".hidden"}
    for name in ("data", "run"):  # of many projects
        (home / name).mkdir()
    with pytest.raises(CannotStart, match="folders of something else"):
        check_home(config.model_copy(update={"home": home}))
    (home / "lake").mkdir()
    check_home(config.model_copy(update={"home": home}))


def test_a_file_in_a_new_folder_is_no_obstacle(config: Settings, tmp_path: Path) -> None:
    """A shell creates the log of `city up` before the city starts."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "up.log").touch()
    check_home(config.model_copy(update={"home": tmp_path / "new"}))


def test_a_city_does_not_start_with_days_of_another_time_zone(config: Settings) -> None:
    make_plan(config.model_copy(update={"history_days": 1}))
    check_home(config)
    other = config.model_copy(update={"timezone": "Europe/Berlin"})
    check_home(other)
    (config.lake / "bronze").mkdir(parents=True)
    with pytest.raises(CannotStart, match=r"CITY_TIMEZONE is Europe/Berlin, and .* have the local days of America/New"):
        check_home(other)


@pytest.mark.parametrize("name", [None, ".env", "lost+found", "cache", "history", "serving"])
def test_a_new_folder_or_one_that_a_command_of_city_made_is_accepted(
    config: Settings, tmp_path: Path, name: str | None
) -> None:
    home = tmp_path / "new"
    if name:
        (home / name).mkdir(parents=True)
    check_home(config.model_copy(update={"home": home}))
