"""The cards of a city: payments by owners with habits, payments by thieves, and when frauds are reported."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city_assets.payments.contract import CATEGORIES, SIMULATED_REPORT
from simulators.faults import DEFAULT_FAULTS
from simulators.world.chance import between, bits, choice, normal, uniform
from simulators.world.local import UTC_CLOCK, LocalClock
from simulators.world.places import weights
from simulators.world.rhythm import bell, night_life
from simulators.world.streets import streets, to_degrees

RATE = 2.0
"""The mean number of payments per second of all cards, by default."""
CARDS = 10_000
"""The number of cards, by default."""
FRAUDS_PER_HOUR = 90.0
"""The frauds per hour of all cards on a bad day."""
PATTERNS = ("card_testing", "stolen_card", "takeover")
"""The fraud patterns: small amounts that try a number, goods for resale, and purchases by somebody else's browser."""
_REPORTED_AFTER = 360.0  # seconds, on average: in reality this takes days
_SPILLS_HOURS = 2
"""A fraud's payments and chargebacks come up to so many hours after the hour in which it began."""
_MOST = 9
"""The most payments of a card in an hour, and of a fraud."""
_HABITS = np.array([2.6, 2.0, 1.8, 0.7, 0.5, 0.3, 0.12, 0.25, 2.2])
"""How often people buy in each of CATEGORIES."""
_PRICE = np.array([0.9, 1.1, 0.35, 1.4, 2.0, 4.5, 7.0, 6.0, 1.2])
"""The usual amount in each category, relative to the card's."""
_ONLINE = CATEGORIES.index("online")
_OTHER_DEVICE, _LARGE, _TRAVELS, _SESSION = 0.012, 0.02, 0.012, 0.06
"""How often an owner pays from a new device, pays a large amount, is away on a day, and pays online in a row."""


@dataclass(frozen=True)
class Events:
    """Payments of owners or thieves, an array each (n,). `pattern` is a position in PATTERNS, -1 for an owner's."""

    seconds: Floats
    card: NDArray[np.integer[Any]]
    payment: NDArray[np.uint64]
    device: NDArray[np.integer[Any]]
    category: NDArray[np.integer[Any]]
    amount: Floats
    latitude: Floats
    longitude: Floats
    pattern: NDArray[np.integer[Any]]

    def take(self, which: NDArray[Any]) -> "Events":
        """Returns some of the events, by position or mask."""
        return Events(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class City:
    """The cards of a city. `rate` is the mean number of payments per second, `faults` the share of a bad day's frauds.

    What a card pays in an hour is a function of the card and the hour.
    """

    seed: int
    clock: LocalClock = UTC_CLOCK
    faults: float = DEFAULT_FAULTS
    rate: float = RATE
    cards: int = CARDS

    @cached_property
    def _cards(self) -> dict[str, Any]:
        """The habits of all cards (c,): usual amount (USD), activity, home and work (crossings), and liking (c, k)."""
        seed, key = self.seed, np.arange(self.cards)
        liking = _HABITS * np.exp(0.6 * normal(seed, "likes", key[:, None], np.arange(len(CATEGORIES))))
        return {
            "usual": np.exp(3.0 + 0.5 * normal(seed, "usual", key)),
            "activity": np.exp(0.5 * normal(seed, "active", key) - 0.125),
            "home": choice(weights().homes, seed, "home", key),
            "work": choice(weights().work, seed, "work", key),
            "night": choice(weights().night, seed, "night", key),
            "liking": liking.cumsum(1) / liking.sum(1, keepdims=True),
        }

    def events(self, begin: float, end: float) -> Events:
        """Computes the payments from `begin` to `end` (s since 1970), in the order of their time."""
        hours = np.arange(int(begin // 3_600) - _SPILLS_HOURS, int(-(-end // 3_600)))
        parts = [self._owners(hours), self._thieves(hours)]
        names = Events.__dataclass_fields__
        together = Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
        inside = np.flatnonzero((together.seconds >= begin) & (together.seconds < end))
        return together.take(inside[np.argsort(together.seconds[inside], kind="stable")])

    def chargebacks(self, begin: float, end: float) -> tuple[Floats, Events]:
        """Computes the reports from `begin` to `end`: their moments, and the payments that they are about."""
        hours = np.arange(int(begin // 3_600) - _SPILLS_HOURS - 1, int(-(-end // 3_600)))
        frauds = self._thieves(hours)
        wait = -_REPORTED_AFTER * np.log1p(-uniform(self.seed, "reported", frauds.payment.view(np.int64)))
        at = frauds.seconds + np.minimum(1 + wait, 0.9 * SIMULATED_REPORT.total_seconds())
        inside = np.flatnonzero((at >= begin) & (at < end))
        inside = inside[np.argsort(at[inside], kind="stable")]
        return at[inside], frauds.take(inside)

    def _owners(self, hours: NDArray[np.integer[Any]]) -> Events:
        """Computes the payments that owners make in hours, which are counted from 1970."""
        local, seed, cards = self.clock.at(hours * 3_600.0), self.seed, self._cards
        awake = 0.05 + bell(local.hour, 12.5, 2.8) + 0.9 * bell(local.hour, 18.0, 2.3) + 0.5 * night_life(local)
        mean = 3_600 * self.rate / self.cards * (awake / 0.62)
        expected = mean[:, None] * cards["activity"]
        hour, card, number = _poisson(expected, seed, hours)
        keys = (hour, card, number)
        seconds = 3_600 * (hour + uniform(seed, "paid at", *keys))
        # Some pay several times in a row, as for parts of one order.
        follows = (number > 0) & (uniform(seed, "session", *keys) < _SESSION)
        first = 3_600 * (hour + uniform(seed, "paid at", hour, card, 0 * number))
        seconds = np.where(follows, first + 20 + 160 * number * uniform(seed, "soon", *keys), seconds)
        category = np.minimum(
            (uniform(seed, "category", *keys)[:, None] > cards["liking"][card]).sum(1), len(CATEGORIES) - 1
        )
        category = np.where(follows, _ONLINE, category)
        large = np.where(uniform(seed, "large", *keys) < _LARGE, 4.0, 1.0)
        amount = cards["usual"][card] * _PRICE[category] * np.exp(0.55 * normal(seed, "amount", *keys)) * large
        device = np.where(
            uniform(seed, "other", *keys) < _OTHER_DEVICE, 2 + number, uniform(seed, "which", *keys) < 0.4
        )
        day = hour // 24
        crossing = self._where(hour, card, number)
        latitude, longitude = to_degrees(
            streets().crossings[crossing] + 150 * np.stack([normal(seed, a, *keys) for a in ("east", "north")], -1)
        )
        away = uniform(seed, "travels", card, day) < _TRAVELS
        latitude = np.where(away, latitude + 3 * normal(seed, "lat away", card, day), latitude)
        longitude = np.where(away, longitude + 5 * normal(seed, "lon away", card, day), longitude)
        payment = bits(seed, "payment", *keys)
        return Events(
            seconds, card, payment, device.astype(int), category, amount, latitude, longitude, np.full(len(card), -1)
        )

    def _where(self, hour: NDArray[Any], card: NDArray[Any], number: NDArray[Any]) -> NDArray[Any]:
        """Chooses the crossings at which owners pay: at home, at work, where they go out, or on an errand."""
        local, cards = self.clock.at(hour * 3_600.0), self._cards
        pick = uniform(self.seed, "where", hour, card, number)
        works = np.where(local.is_workday, 0.75, 0.1) * bell(local.hour, 13.0, 3.0)
        out = 0.5 * night_life(local)
        errand = choice(weights().work + weights().homes, self.seed, "errand", hour, card, number)
        return np.where(
            pick < works,
            cards["work"][card],
            np.where(pick < works + out, cards["night"][card], np.where(pick < 0.85, cards["home"][card], errand)),
        )

    def _thieves(self, hours: NDArray[np.integer[Any]]) -> Events:
        """Computes the payments of frauds that begin in hours, which are counted from 1970."""
        seed, every = self.seed, np.arange(self.cards)
        happens = uniform(seed, "fraud", hours[:, None], every) < FRAUDS_PER_HOUR * self.faults / self.cards
        row, card = np.nonzero(happens)
        hour = hours[row]
        pattern = choice([1.0, 1.3, 1.3], seed, "pattern", hour, card)
        least, most = np.array([3, 1, 1])[pattern], np.array([7, 4, 4])[pattern]
        count = least + (uniform(seed, "how many", hour, card) * (most - least + 1)).astype(int)
        place = np.repeat(np.arange(len(card)), count)
        number = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        hour, card, pattern = hour[place], card[place], pattern[place]
        keys = (hour, card, number)
        gap = between(np.array([8, 120, 45])[pattern], np.array([70, 1_200, 500])[pattern], seed, "gap", *keys)
        begin = 3_600 * (hour + uniform(seed, "begins", hour, card))
        total = np.cumsum(gap)
        seconds = begin + total - np.repeat(total[np.cumsum(count) - count] if len(count) else total, count)
        return self._stolen(seconds, keys, pattern)

    def _stolen(self, seconds: Floats, keys: tuple[Any, Any, Any], pattern: NDArray[Any]) -> Events:
        """Computes what thieves buy. Much of it is what an owner may buy, too."""
        seed, cards = self.seed, self._cards
        hour, card, _ = keys
        testing, stolen = pattern == 0, pattern == 1
        goods = choice(_HABITS * np.array([1, 0.6, 0.5, 2, 3, 8, 12, 0.4, 0]), seed, "goods", *keys)
        category = np.where(stolen, goods, _ONLINE)
        factor = np.where(stolen, between(0.8, 2.6, seed, "factor", *keys), between(0.9, 3.5, seed, "factor", *keys))
        amount = cards["usual"][card] * _PRICE[category] * factor
        amount = np.where(testing, between(0.5, 9.0, seed, "test", *keys), amount)
        # A stolen card is the owner's own device. A browser of another person is one that the card has never had.
        device = np.where(stolen, 1, np.where(testing, 200, 100) + hour % 97)
        lives = uniform(seed, "nearby", hour, card) < 0.65
        crossing = np.where(lives, cards["home"][card], choice(weights().work, seed, "shop", hour, card))
        latitude, longitude = to_degrees(
            streets().crossings[crossing] + 900 * np.stack([normal(seed, a, *keys) for a in ("t east", "t north")], -1)
        )
        far = ~lives & (uniform(seed, "far", hour, card) < 0.5)
        latitude = np.where(far, latitude + between(-6, 6, seed, "lat far", hour, card), latitude)
        longitude = np.where(far, longitude + between(-12, 12, seed, "lon far", hour, card), longitude)
        payment = bits(seed, "stolen", *keys)
        return Events(seconds, card, payment, device, category, amount, latitude, longitude, pattern)


def _poisson(
    expected: Floats, seed: int, hours: NDArray[np.integer[Any]]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Draws the numbers of payments, given their means (h, c). Returns hour, card and number of each payment."""
    draw = uniform(seed, "count", hours[:, None], np.arange(expected.shape[1]))
    probability = np.exp(-expected)
    below, counts = probability.copy(), np.zeros(expected.shape, int)
    for most in range(1, _MOST + 1):
        counts += draw > below
        probability = probability * expected / most
        below += probability
    row, card = np.nonzero(counts)
    count = counts[row, card]
    place = np.repeat(np.arange(len(row)), count)
    number = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
    return hours[row[place]], card[place], number
