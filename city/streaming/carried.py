"""Remembers which MQTT messages are in Kafka already.

An MQTT broker sends a retained message again to each new subscription.
"""

from array import array
from hashlib import blake2b
from pathlib import Path

_KEPT = 50_000
_RETAINED_KEPT = 10_000


class CarriedMessages:
    """Remembers the digests of the last messages that the bridge carried to Kafka, across restarts.

    Safe for one thread. MQTT 3.1.1 removes the retain flag from a message to an established subscription, so a message
    is known to be retained only when it comes again. Hence this class remembers all messages of some minutes, and
    permanently those that came again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: dict[int, None] = {}
        self._older: dict[int, None] = {}
        self._retained: dict[int, None] = {}
        self._changed = False
        self._load_digests()

    def add(self, topic: str, payload: bytes, retained: bool) -> None:
        """Records that the message is in Kafka. `retained` is its retain flag."""
        if retained:
            self._retain_digest(_digest(topic, payload))
        else:
            digest = _digest(topic, payload)
            self._older.pop(digest, None)
            self._recent.pop(digest, None)  # moves the newest digest to the end
            self._recent[digest] = None
            if len(self._recent) > _KEPT:
                self._recent, self._older = {}, self._recent
        self._changed = True

    def is_repeat(self, topic: str, payload: bytes) -> bool:
        """Returns whether a message with the retain flag was carried before."""
        digest = _digest(topic, payload)
        if digest in self._recent or digest in self._older:
            self._retain_digest(digest)
        return digest in self._retained

    def save(self) -> None:
        """Writes the digests to the file where they have changed. Raises OSError."""
        if not self._changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(array("Q", [len(self._retained), *self._retained, *self._older, *self._recent]).tobytes())
        fresh.replace(self._path)
        self._changed = False

    def _retain_digest(self, digest: int) -> None:
        self._changed = self._changed or digest not in self._retained
        self._retained.pop(digest, None)  # moves the newest digest to the end
        self._retained[digest] = None
        if len(self._retained) > _RETAINED_KEPT:
            del self._retained[next(iter(self._retained))]

    def _load_digests(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        digests = array("Q")
        digests.frombytes(content[: len(content) // 8 * 8])
        retained = digests[0] if digests else 0
        self._retained = dict.fromkeys(digests[1 : 1 + retained])
        self._older = dict.fromkeys(digests[1 + retained :][-_KEPT:])  # bounded, or it grows with each session


def _digest(topic: str, payload: bytes) -> int:
    return int.from_bytes(
        blake2b(payload, digest_size=8, key=blake2b(topic.encode(), digest_size=16).digest()).digest()
    )
