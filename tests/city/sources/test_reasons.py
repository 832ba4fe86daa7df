"""Reasons of messages with items."""

from city.sources.reasons import with_item, without_items


def test_the_same_faults_at_other_places_compare_equal() -> None:
    earlier = [with_item(1, "speed: nothing at s"), with_item(17, "speed: nothing at s"), with_item(None, "message: x")]
    later = [with_item(4, "speed: nothing at s"), "message: x"]
    assert earlier[1] == "item 17: speed: nothing at s"
    assert without_items(earlier) == without_items(later) == ["message: x", "speed: nothing at s"]
    assert without_items(later) != without_items(["message: x"])
