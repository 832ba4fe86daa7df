"""What the domains declare as alarms, on messages as the stream sends them."""

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from city.alerts.condition_watch import ConditionWatch
from city.alerts.conditions import MOST_BYTES, Condition
from city.alerts.model import Finding
from city_assets.equipment.alarms import ANOMALY, REMAINING_LIFE
from city_assets.equipment.contract import SIGNALS
from city_assets.equipment.limits import DEFAULT_LIMITS, LIMIT_COLUMNS
from city_assets.equipment.models import ANOMALIES, LIFE
from city_assets.payments.alarms import FRAUD
from city_assets.payments.models import FRAUDS, fraud_message
from city_assets.traffic.alarms import CONGESTION
from city_assets.traffic.transforms import SLOW_KMH
from simulators.world.flow import Flow
from simulators.world.streets import streets, to_metres
from tests.events import iso

BEGIN = datetime(2026, 5, 4, 0, tzinfo=UTC)
CROWDED = (40.755, -73.983)


def follow(condition: Condition, messages: Iterable[Mapping[str, Any]]) -> list[Finding]:
    watch, findings = ConditionWatch(condition), []
    for message in messages:
        at = datetime.fromisoformat(message[condition.time]).timestamp()
        finding = watch.take(message, 0, at + 60)
        findings += [finding] if finding else []
        findings += watch.pass_time()
    return findings


def as_json(rows: pl.DataFrame) -> list[dict[str, Any]]:
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return [json.loads(line) for line in rows.with_columns(times, id=pl.lit("t-0-1")).write_ndjson().splitlines()]


def scores(values: list[float], **more: float) -> list[dict[str, Any]]:
    more = more or {"vibration_now": 0.7, "power_now": 0.1, "power_long": 0.2}
    shares = dict.fromkeys(ANOMALIES.inputs, 0.0) | more
    rows = pl.DataFrame(
        {
            "timestamp": [BEGIN + timedelta(seconds=5 * n) for n in range(len(values))],
            "output": [[value] for value in values],
            "prediction": ["anomaly" if value > 1 else "normal" for value in values],
        }
    ).with_columns(machine_id=pl.lit("pump_001"), confidence=pl.lit(0.9), contributions=pl.lit(shares))
    assert ANOMALIES.stream is not None
    return as_json(ANOMALIES.stream.message(rows))


def test_a_machine_whose_readings_stay_anomalous_has_one_alarm_until_they_are_normal() -> None:
    raised, graver, cleared = follow(ANOMALY, scores([0.2, 4.0, 6.0, *[7.0] * 3, 12.0, *[0.3] * 14]))
    assert raised.labels == {"machine_id": "pump_001", "type": "machine_anomaly"}
    assert raised.title == "pump_001: anomalous readings, 6 times the limit, mostly by vibration"
    assert raised.detail is not None
    assert list(raised.detail["contributions"].items())[:2] == [("vibration", 0.7), ("power", 0.3)]
    assert [raised.severity, graver.severity, cleared.state] == ["warning", "error", "passing"]


def test_an_alarm_names_each_signal_that_may_be_the_wrong_one() -> None:
    alike = {"power_now": 0.34, "vibration_now": 0.33, "pressure_now": 0.3, "temperature_now": 0.03}
    raised = follow(ANOMALY, scores([4.0, 4.0], **alike))[0]
    assert raised.title.endswith("mostly by power or vibration or pressure")


def test_readings_that_are_anomalous_for_a_moment_are_no_alarm() -> None:
    assert follow(ANOMALY, scores([0.2, 30.0, 0.4, 1.2, 1.1, 0.9, 1.3, 0.4, 0.3, 1.5] * 5)) == []


def lives(shares: list[float], scale: float = 1.0, **changes: object) -> list[dict[str, Any]]:
    """The messages of a machine in the minutes after BEGIN. Its limits are `scale` times those of the default."""
    limits: dict[str, Any] = {column: getattr(DEFAULT_LIMITS, name) for column, name in LIMIT_COLUMNS.items()}
    limits |= {column: scale * limits[column] for column in limits if column.endswith("_hours")} | changes
    rows = pl.DataFrame(
        {
            "timestamp": [BEGIN + timedelta(minutes=n) for n in range(len(shares))],
            "output": [[value] for value in shares],
            "low": [max(0.0, value - 0.12) for value in shares],
            "high": [value + 0.12 for value in shares],
            **limits,
        }
    ).with_columns(machine_id=pl.lit("pump_001"), contributions=pl.lit(dict.fromkeys(LIFE.inputs, -0.01)))
    assert LIFE.stream is not None
    return as_json(LIFE.stream.message(rows))


SHARES_LEFT = [1.0, 0.2, 0.4, 0.4, 0.3, 0.2, 0.15, 0.1, *[1.0] * 11]  # the first low one is alone


def test_a_life_that_is_about_to_end_is_critical_until_the_machine_is_repaired() -> None:
    raised, *repeated, cleared = follow(REMAINING_LIFE, lives(SHARES_LEFT))
    assert (raised.severity, raised.state, cleared.state) == ("critical", "failing", "passing")
    assert "9 minutes of life left, perhaps 2: stop it and replace" in raised.title
    assert raised.detail is not None
    assert set(raised.detail["contributions"]) == set(SIGNALS)
    assert {finding.cause for finding in (raised, *repeated, cleared)} == {"domain//remaining_life/pump_001"}


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"life_unit_hours": 1.0}, "150 hours of life left, perhaps 30: stop it"),
        ({"life_unit": "d", "life_unit_hours": 24.0}, "6 days of life left, perhaps 1: stop it"),
        ({"life_unit": "cycles", "life_unit_hours": 4.0}, "38 cycles of life left, perhaps 8: stop it"),
    ],
)
def test_the_alarm_of_a_machine_that_lives_long_follows_its_own_limits(changes: dict[str, Any], title: str) -> None:
    raised = follow(REMAINING_LIFE, lives(SHARES_LEFT, 1000.0, **changes))[0]
    assert raised.title.startswith(f"pump_001: {title}")
    assert follow(REMAINING_LIFE, lives(SHARES_LEFT))[0].severity == raised.severity


def payments(*probabilities: float, threshold: float | None = 0.1) -> list[dict[str, Any]]:
    rows = pl.DataFrame(
        {
            "timestamp": [BEGIN + timedelta(minutes=2 * n) for n in range(len(probabilities))],
            "output": [[1 - p, p] for p in probabilities],
            "prediction": ["fraud" if threshold and p >= threshold else "genuine" for p in probabilities],
        }
    ).with_columns(
        payment_id=pl.lit("pay_1"),
        card=pl.lit("card_00001"),
        amount=pl.lit(1234.5),
        threshold=pl.lit(threshold, pl.Float64),
        confidence=pl.lit(0.9),
        contributions=pl.lit(dict.fromkeys(FRAUDS.inputs, 0.0) | {"kmh_from_last": 0.6, "amount": 0.2}),
    )
    return as_json(fraud_message(rows))


def test_a_card_has_one_alarm_from_a_fraud_until_there_was_none_for_ten_minutes() -> None:
    unlikely, likely, cleared = follow(FRAUD, payments(0.01, 0.2, 0.9, 0.05, 0.02, 0.01, 0.01, 0.01))
    assert (unlikely.severity, likely.severity, cleared.state) == ("info", "warning", "passing")
    assert likely.labels == {"card": "card_00001", "type": "fraud"}
    assert "1,234.50 USD is a fraud with a probability of 90%" in likely.title
    assert likely.detail is not None
    assert list(likely.detail["contributions"])[:2] == ["kmh_from_last", "amount"]
    assert follow(FRAUD, payments(0.9, 0.95, threshold=None)) == []  # a version without a threshold judges nothing


class Quiet(Flow):
    """The traffic on a day without an incident."""

    def _incident_delays(
        self, at: NDArray[np.floating[Any]], crossings: Any = slice(None)
    ) -> NDArray[np.floating[Any]]:
        return np.zeros((len(at), len(streets().crossings[crossings])))


def windows(hours: float, jam: range = range(0), share: float = 1.0) -> list[dict[str, Any]]:
    """A crowded cell's windows over a Monday of the simulator: each is told of as it begins, midway and at its end."""
    chance, messages = random.Random(3), []
    starts = [BEGIN + timedelta(minutes=2 * number) for number in range(int(hours * 30))]
    place = to_metres(np.array(CROWDED[0]), np.array(CROWDED[1]))
    around = ((streets().crossings - place) ** 2).sum(1) < 600**2  # about a cell
    speeds = (36 / (1 + Quiet(0).delays([start.timestamp() for start in starts])[:, around])).mean(1)
    for number, (start, usual) in enumerate(zip(starts, speeds.tolist(), strict=True)):
        for positions in (8, 150, 330):
            speed = max(0.0, usual * (share if number in jam else 1.0) + chance.gauss(0, 22 / positions**0.5))
            content = {"kind": "traffic_cells", "cell": "882a100d2dfffff", "window_start": iso(start)}
            messages.append(
                content | {"vehicle_count": 6, "positions": positions, "speed_mean": speed, "speed_std": 5.0}
            )
    return messages


def test_a_rush_hour_is_no_alarm_and_a_jam_outside_it_is_one_until_it_ends() -> None:
    day = windows(24)
    assert min(message["speed_mean"] for message in day if message["positions"] > 300) < SLOW_KMH
    assert follow(CONGESTION, day) == []
    raised, *repeated, cleared = follow(CONGESTION, windows(13, jam=range(360, 375), share=0.25))
    assert raised.labels == {"cell": "882a100d2dfffff", "type": "unexpected_congestion"}
    assert raised.detail is not None
    assert raised.detail["window_start"] == iso(BEGIN + timedelta(minutes=722))  # in the second window of the jam
    assert "unexpected congestion, 6 vehicles at" in raised.title
    assert {finding.state for finding in repeated} == {"failing"}
    assert cleared.state == "passing"


def test_positions_without_a_speed_do_not_make_a_mean_meaningful() -> None:
    jammed = windows(13, jam=range(360, 375), share=0.25)
    assert follow(CONGESTION, [message | {"speeds": 5} for message in jammed]) == []
    counted = [message | {"speeds": message["positions"]} for message in jammed]
    assert [finding.state for finding in follow(CONGESTION, counted)][:1] == ["failing"]


def test_a_cell_that_has_hardly_been_heard_of_raises_nothing() -> None:
    assert follow(CONGESTION, windows(0.4, jam=range(12), share=0.1)) == []


def test_every_cell_of_a_large_city_keeps_what_is_usual_for_it() -> None:
    watch, window = ConditionWatch(CONGESTION), windows(0.1)[-1]
    at = datetime.fromisoformat(window["window_start"]).timestamp()
    cells = [f"89{n:013x}" for n in range(16_000)]
    for cell in cells:
        watch.take({**window, "cell": cell}, 0, at + 60)
    assert list(watch.state["tracks"]) == cells
    track = follow_state(windows(3))
    assert len(track["values"]) == 30
    assert len(json.dumps({window["cell"]: track})) <= MOST_BYTES / CONGESTION.most_keys


def follow_state(messages: Iterable[Mapping[str, Any]]) -> Any:
    """What is kept of the one cell of the messages."""
    watch = ConditionWatch(CONGESTION)
    for message in messages:
        watch.take(message, 0, datetime.fromisoformat(message["window_start"]).timestamp() + 60)
    (track,) = watch.state["tracks"].values()
    return track
