"""What happens to events with ids that nobody has announced."""

from typing import Any

import polars as pl
import pytest

from city.contracts.model import Contract
from city.contracts.registry import check_unknown_ids
from city.quality.announced import KnownIds, load_announced_keys, policy_of
from city.settings import Settings
from city.streaming.decode import decode
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.payments.contract import CHARGEBACKS, PAYMENTS
from simulators.faults import FaultRates
from simulators.payments import payloads
from simulators.world.payers import City
from tests.events import NOW, encode, iso, raw, reading
from tests.lakes import stream
from tests.sensors import fleet

HOUR = (NOW.timestamp() - 3_600, NOW.timestamp())


def announced(config: Settings) -> str:
    sensor = fleet(FaultRates.scaled(0), 0)[0]
    stream(config.lake, DEVICES, [sensor.announcement(NOW)], NOW)
    return sensor.id


def test_the_policy_is_that_of_the_settings_else_of_the_contract(config: Settings) -> None:
    (reference,) = SENSORS.references
    assert policy_of(SENSORS, reference, config) == "flag"
    strict = config.model_copy(update={"unknown_ids": {"sensors": "quarantine"}})
    assert policy_of(SENSORS, reference, strict) == "quarantine"
    check_unknown_ids(strict)
    with pytest.raises(ValueError, match="CITY_UNKNOWN_IDS names sensor; contracts with references: chargebacks"):
        check_unknown_ids(config.model_copy(update={"unknown_ids": {"sensor": "accept"}}))


def test_only_where_it_is_told_is_an_unknown_id_quarantined(config: Settings) -> None:
    known = announced(config)
    messages = encode(reading(sensor_id=known), reading(sensor_id="a-stranger"))
    rows, rejects = decode(SENSORS, raw(messages), {}, KnownIds(SENSORS, config).current())
    assert (rows.height, rejects.height) == (2, 0)
    strict = config.model_copy(update={"unknown_ids": {"sensors": "quarantine"}})
    ids = KnownIds(SENSORS, strict).current()
    rows, rejects = decode(SENSORS, raw(messages), {}, ids)
    assert rows["sensor_id"].to_list() == [known]
    assert rejects["reasons"].to_list() == [["sensor_id: 'a-stranger' has not been announced"]]
    assert rejects["raw"].to_list() == [messages[1]]


def test_ids_are_read_again_only_when_there_are_new_ones_and_stay_where_that_fails(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, reads = announced(config), list[str]()
    strict = config.model_copy(update={"unknown_ids": {"sensors": "quarantine"}})
    monkeypatch.setattr("city.quality.announced._REREAD_SECONDS", -1.0)

    def load(contract: Contract, *arguments: Any) -> dict[str, pl.Series]:
        reads.append(contract.name)
        return load_announced_keys(contract, *arguments)

    monkeypatch.setattr("city.quality.announced.load_announced_keys", load)
    ids = KnownIds(SENSORS, strict)
    assert [ids.current()["sensor_id"].to_list() for _ in range(3)] == [[known]] * 3
    assert len(reads) == 1

    def fail(*_: Any) -> None:
        raise OSError("the disk")

    with monkeypatch.context() as disk:
        disk.setattr(KnownIds, "_table_versions", fail)
        assert ids.current()["sensor_id"].to_list() == [known]
        with pytest.raises(OSError, match="the disk"):
            KnownIds(SENSORS, strict).current()
    announced(config)
    ids.current()
    assert len(reads) == 2


def test_an_accepted_id_is_no_fault_of_the_day(config: Settings) -> None:
    announced(config)
    assert list(load_announced_keys(SENSORS, config.lake, config, "flag", "quarantine")) == ["sensor_id"]
    open_city = config.model_copy(update={"unknown_ids": {"sensors": "accept"}})
    assert load_announced_keys(SENSORS, config.lake, open_city, "flag", "quarantine") == {}


def test_a_chargeback_names_a_payment_and_not_a_card(config: Settings) -> None:
    payment = next(payloads(City(0, rate=0.02, cards=20), City(0, rate=0.02, cards=20).events(*HOUR)))
    stream(config.lake, PAYMENTS, [payment], NOW)
    strict = config.model_copy(update={"unknown_ids": {"chargebacks": "quarantine"}})
    known = {"timestamp": iso(NOW), "payment_id": payment["payment_id"], "card": payment["card"]}
    messages = encode(known, known | {"payment_id": "pay_of_nobody"})
    rows, rejects = decode(CHARGEBACKS, raw(messages), {}, KnownIds(CHARGEBACKS, strict).current())
    assert rows["payment_id"].to_list() == [payment["payment_id"]]
    assert rejects["reasons"].to_list() == [["payment_id: 'pay_of_nobody' has not been announced"]]
