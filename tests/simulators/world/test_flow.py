import numpy as np

from simulators.world.flow import Flow
from simulators.world.local import LocalClock
from simulators.world.streets import streets
from simulators.world.weather import precipitation, recent_rain

FLOW = Flow(0, LocalClock("America/New_York", "US"))
MONDAY = 1_777_867_200.0  # 4 May 2026, midnight in New York
HOUR = 3_600.0


def speed_share(seconds: object) -> np.ndarray:
    return 1 / (1 + FLOW.delays(np.asarray(seconds)))


def test_rush_hours_are_slow_nights_are_fast_and_weekends_are_between() -> None:
    minutes = np.arange(0, HOUR, 300)
    rush, night = (speed_share(MONDAY + hour * HOUR + minutes).mean() for hour in (17, 3))
    sunday = speed_share(MONDAY + (6 * 24 + 17) * HOUR + minutes).mean()
    assert rush < 0.6 * night
    assert rush < sunday < night


def test_rain_slows_the_traffic_everywhere() -> None:
    days = MONDAY + np.arange(0, 60 * 24 * HOUR, 600)
    hour = FLOW.clock.at(days).hour
    midday = days[(hour > 11) & (hour < 15)]
    wet = recent_rain(midday, FLOW.seed)
    assert (wet > 2).sum() > 20
    dry, rainy = midday[wet == 0][::7], midday[wet > 2]
    ratio = speed_share(rainy).mean(0) / speed_share(dry).mean(0)
    assert 0.6 < ratio.mean() < 0.85
    assert (ratio < 1).mean() > 0.95


def test_it_rains_a_tenth_of_the_time() -> None:
    share = (precipitation(np.arange(0, 400 * 24 * HOUR, 1_800), 3) > 0).mean()
    assert 0.07 < share < 0.15


def test_an_incident_slows_its_street_spreads_and_dissolves() -> None:
    begin = MONDAY + 8 * HOUR
    incidents = FLOW.incidents(begin, begin + 6 * HOUR)
    first = int(np.argmax(incidents.begin))
    at = incidents.begin[first] + np.array([-60, 300, 1_200])
    over = np.array([incidents.cleared[first] + 1_600])
    network = streets()
    distance = np.sqrt(((network.crossings - network.crossings[incidents.crossing[first]]) ** 2).sum(1))
    here, next_to_it = distance == 0, (distance > 300) & (distance < 700)
    alone = FLOW._incident_delays(np.append(at, over)) - others(first, np.append(at, over))
    assert np.abs(alone[0]).max() < 1e-9
    assert alone[1, here] > 1
    assert alone[1, here] > alone[1, next_to_it].mean()
    assert alone[2, next_to_it].mean() > 1.2 * alone[1, next_to_it].mean()
    assert np.abs(alone[3]).max() < 1e-9
    widest = np.array([incidents.cleared[first]])
    near_its_end = FLOW._incident_delays(widest) - others(first, widest)
    assert near_its_end[:, distance > 3_000].max() < 0.05
    assert near_its_end.mean() < 0.05 * near_its_end[:, here].mean()


def test_the_mean_speed_of_the_city_follows_the_hour_and_the_rain_and_no_incident() -> None:
    working_days = MONDAY + np.concatenate([np.arange(day * 24, day * 24 + 24, 0.25) for day in range(5)]) * HOUR
    mean = speed_share(working_days).mean(1)
    dry = recent_rain(working_days, FLOW.seed) == 0
    slot = (np.arange(len(mean)) % 96)[dry]
    usual = np.bincount(slot, mean[dry], 96) / np.maximum(np.bincount(slot, minlength=96), 1)
    assert np.std(mean[dry] - usual[slot]) < 0.25 * np.std(mean[dry])


def test_the_traffic_of_some_crossings_is_that_of_all() -> None:
    at, some = MONDAY + np.arange(8, 10, 0.1) * HOUR, np.array([3, 200, 77])
    assert np.allclose(FLOW.delays(at, some), FLOW.delays(at)[:, some])


def others(but: int, at: np.ndarray) -> np.ndarray:
    """The delays by all incidents but one, made by a flow that does not have it."""

    class Without(Flow):
        def incidents(self, begin: float, end: float):  # type: ignore[no-untyped-def]
            every = super().incidents(begin, end)
            target = FLOW.incidents(MONDAY + 8 * HOUR, MONDAY + 14 * HOUR).begin[but]
            kept = every.begin != target
            return type(every)(*(getattr(every, name)[kept] for name in every.__dataclass_fields__))

    return Without(FLOW.seed, FLOW.clock)._incident_delays(at)


def test_neighbouring_crossings_are_alike_and_far_ones_are_not() -> None:
    at = MONDAY + np.concatenate([np.arange(day * 24 + 10, day * 24 + 15, 1 / 30) for day in range(5)]) * HOUR
    delays = np.log(FLOW.delays(at))
    delays -= delays.mean(0)
    network = streets()
    near = [np.corrcoef(delays[:, a], delays[:, b])[0, 1] for a, b in network.ends[::20]]
    apart = np.abs(network.crossings[:, 1]).argsort()[-40:]
    far = [np.corrcoef(delays[:, a], delays[:, b])[0, 1] for a, b in zip(apart[:20], network.ends[:20, 0], strict=True)]
    assert np.mean(near) > 0.7
    assert np.mean(far) < 0.4


def test_the_same_moment_has_the_same_traffic_in_any_order() -> None:
    at = MONDAY + np.array([9.0, 12.0, 15.0]) * HOUR
    assert np.allclose(FLOW.delays(at)[1], FLOW.delays(at[1:2])[0])
    assert not np.allclose(FLOW.delays(at), Flow(1, FLOW.clock).delays(at))
