import socket
import time

from city.serving.health import _answers


def test_a_questdb_that_hangs_is_not_well_though_it_listens() -> None:
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        began = time.monotonic()
        found = _answers(f"127.0.0.1:{hung.getsockname()[1]}")
    assert (found.ok, found.needed) == (False, False)
    assert "no answer from" in found.detail
    assert time.monotonic() - began < 10
