"""A pytest plugin for a suite that several processes run side by side: `-p tests.lanes --lane=NAME --taken=FOLDER`.

All collect the same tests. A process that is free takes the next group in its lane's order, the tests of one file that
need the same servers, unless another process has taken it. So all end at about the same time, however long a group is.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import pytest

ORDERS = {
    "servers": (("stack", 1), ("fast", -1)),
    # Those that start servers of their own first: they take longest. It meets the lane before half-way.
    "more-servers": (("own_servers", 1), ("stack", -1), ("fast", -1)),
    "fast": (("fast", 1),),
}
"""Of each lane, the kinds of tests that it takes, one after the other, and whether from the first file (1) or the last
(-1)."""
OPTIONS = [
    *("-p", "tests.lanes", "-p", "no:cacheprovider", "--durations=10", "-o", "console_output_style=classic"),
    "--snapshot-disable-unused",  # those of the tests that other lanes take
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", choices=list(ORDERS), required=True)
    parser.addoption("--taken", type=Path, required=True, help="a folder of all lanes, for which groups are taken")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Lane(config.getoption("--lane"), config.getoption("--taken")))


def kind(item: pytest.Item) -> str:
    if item.get_closest_marker("own_servers"):
        return "own_servers"
    return "stack" if item.get_closest_marker("integration") else "fast"


def group(item: pytest.Item) -> str:
    return f"{kind(item)}:{item.nodeid.partition('::')[0]}"


def ordered(items: Iterable[pytest.Item], lane: str) -> list[pytest.Item]:
    """The tests that the lane takes, in its order; those of a group stay as they are."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    return [
        item
        for wanted, step in ORDERS[lane]
        for tests in list(groups.values())[::step]
        if kind(tests[0]) == wanted
        for item in tests
    ]


class Lane:
    def __init__(self, name: str, taken: Path) -> None:
        self._name, self._taken = name, taken

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = ordered(items, self._name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Pytest's own loop, of the tests that are this lane's. Each is told which comes next, for what they share."""
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest says what could not be collected
        for item, following in self._mine(session.items):
            # The session stands for a test of another file: which one will be is not known yet.
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following or session)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        return True

    def _mine(self, items: list[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
        """Each test that this lane has taken, and which of its group is next. A group is taken when it begins, so that
        none waits for a lane that is busy while another is free."""
        for name, tests in groupby(items, group):
            if self._take(name):
                chosen = list(tests)
                yield from zip(chosen, [*chosen[1:], None], strict=True)

    def _take(self, name: str) -> bool:
        try:
            (self._taken / quote(name, safe="")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
