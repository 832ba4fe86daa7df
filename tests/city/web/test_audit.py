from city.settings import Settings
from city.web.audit import Audit


def test_a_line_that_is_no_entry_is_left_out(config: Settings) -> None:
    audit = Audit(config)
    audit.write("ada", "promoted", model="speed", version=3)
    with (config.home / "serving" / "audit.jsonl").open("a") as file:
        file.write('{"note": "by hand"}\n"text"\n{"at": 1.0, "by": "ad')
    (newest,) = audit.newest(10)
    assert newest.items() >= {"by": "ada", "what": "promoted", "model": "speed", "version": 3}.items()
