"""The log of erasures: cut off, restored, shared, and of an earlier version."""

import json
from pathlib import Path

import pytest

from city.lake.erasures import LOG, Erasure, Erasures, announce, digest


def erasure(identity: str) -> Erasure:
    return Erasure("vehicle", digest("vehicle", identity))


A, B, C = map(erasure, "abc")


def test_what_was_announced_is_read_once(tmp_path: Path) -> None:
    erasures = Erasures(tmp_path)
    assert not erasures.are_new()
    assert erasures.read() == []
    announce(tmp_path, A)
    assert erasures.are_new()
    assert erasures.read() == [A]
    announce(tmp_path, B)
    following = Erasures(tmp_path, json.loads(json.dumps(erasures.positions)))
    assert [erasures.read(), following.read()] == [[B], [B]]
    assert [erasures.read(), following.read()] == [[], []]
    assert not erasures.are_new()


@pytest.mark.parametrize("cut", [1, 20, 80])
def test_a_line_that_was_cut_off_takes_no_other_along(tmp_path: Path, cut: int) -> None:
    erasures = Erasures(tmp_path)
    announce(tmp_path, A)
    announce(tmp_path, B)
    log = tmp_path / LOG
    log.write_bytes(log.read_bytes()[:-cut])
    assert erasures.read() == [A]
    assert not erasures.are_new(), "an unfinished line would be read at every look"
    announce(tmp_path, C)
    assert erasures.read()[-1] == C
    assert erasures.read() == []
    log.write_bytes(log.read_bytes() + b"[1]\n\xff\n{}\n")
    assert erasures.read() == []


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOG).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        announce(tmp_path, A)


def test_each_home_of_a_shared_store_has_a_position_of_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for home in (first, second):
        announce(home, A)
    announce(first, B)
    announce(second, C)
    erasures = Erasures(first)
    assert erasures.read() == [A, B]
    erasures = Erasures(second, erasures.positions)
    assert erasures.read() == [A, C], "as long, begun alike, and not read yet"
    erasures = Erasures(first, erasures.positions)
    assert erasures.read() == []
    announce(first, C)
    assert erasures.read() == [C]


def test_a_log_that_is_shorter_than_it_was_is_read_from_its_beginning(tmp_path: Path) -> None:
    announce(tmp_path, A)
    backup = (tmp_path / LOG).read_bytes()
    announce(tmp_path, B)
    erasures = Erasures(tmp_path)
    erasures.read()
    (tmp_path / LOG).write_bytes(backup)
    assert Erasures(tmp_path, erasures.positions).read() == [A]
    assert erasures.read() == [A]


def test_a_log_and_a_position_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    line = json.dumps({"kind": A.kind, "digest": A.digest}) + "\n"
    (tmp_path / LOG).write_text(line)
    erasures = Erasures(tmp_path, len(line))
    assert erasures.read() == [A]
    announce(tmp_path, B)
    assert erasures.read() == [B]
