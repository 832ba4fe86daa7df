"""What the bridge remembers of MQTT messages: enough, and never more than a bound."""

from pathlib import Path

import pytest

from city.streaming import carried as module
from city.streaming.carried import CarriedMessages


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 100)
    monkeypatch.setattr(module, "_RETAINED_KEPT", 20)


def test_the_memory_does_not_grow_with_the_sessions(tmp_path: Path) -> None:
    """Each session carries less than what makes it let go of the oldest, and is saved at its end."""
    path = tmp_path / "carried.bin"
    sizes = []
    for session in range(20):
        carried = CarriedMessages(path)
        for number in range(90):
            carried.add("t", b"%d %d" % (session, number), retained=False)
        carried.save()
        sizes.append(path.stat().st_size)
    assert max(sizes) <= 8 * (1 + 100 + 100)
    carried = CarriedMessages(path)
    assert len(carried._older) == 100
    assert carried.is_repeat("t", b"19 0")
    assert carried.is_repeat("t", b"18 85")
    assert not carried.is_repeat("t", b"0 0")


def test_what_came_again_lately_is_not_forgotten_for_having_come_early(tmp_path: Path) -> None:
    path = tmp_path / "carried.bin"
    carried = CarriedMessages(path)
    carried.add("t", b"early", retained=False)
    for number in range(99):
        carried.add("t", b"1 %d" % number, retained=False)
    carried.add("t", b"early", retained=False)
    carried.save()
    carried = CarriedMessages(path)
    carried.add("t", b"2", retained=False)
    carried.save()
    assert CarriedMessages(path).is_repeat("t", b"early")


def test_retained_messages_have_a_bound_of_their_own_and_the_newest_stay(tmp_path: Path) -> None:
    path = tmp_path / "carried.bin"
    for session in range(5):
        carried = CarriedMessages(path)
        for number in range(15):
            carried.add("t", b"%d %d" % (session, number), retained=True)
        carried.save()
    assert path.stat().st_size == 8 * (1 + 20)
    carried = CarriedMessages(path)
    assert carried.is_repeat("t", b"4 0")
    assert not carried.is_repeat("t", b"0 0")
