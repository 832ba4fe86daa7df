"""The predictor's start and stop while what it reads is unavailable."""

import asyncio

import pytest

from city.models.registry import RegistryAway
from city.serving import predictor_tasks, versions
from city.serving.predictor import Predictor
from city.settings import Settings
from city.web.metrics import Metrics
from tests.city.serving.served import SPEED


@pytest.fixture
def unstarted(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(predictor_tasks, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(versions, "_AGAIN_SECONDS", 0.01)
    return Predictor(config, {SPEED.name: SPEED}, Metrics(config))


def test_a_predictor_that_was_not_started_can_be_stopped(unstarted: Predictor) -> None:
    asyncio.run(unstarted.stop())


def test_champions_are_loaded_once_the_registry_is_back(unstarted: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str | None] = []

    def start() -> None:
        reasons.append(unstarted.versions.registry_error)
        if len(reasons) < 3:
            raise RegistryAway("the registry is unavailable")

    monkeypatch.setattr(unstarted.versions._champions, "start", start)
    asyncio.run(unstarted.versions.start())
    assert reasons[1:] == ["the registry is unavailable"] * 2
    assert unstarted.versions.registry_error is None


def test_outcomes_of_before_are_taken_over_once_the_lake_is_back(
    unstarted: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    async def recover() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the lake is unavailable")

    monkeypatch.setattr(unstarted.feedback, "recover", recover)
    asyncio.run(unstarted._tasks._recover_feedback())
    assert len(calls) == 3
    assert caplog.text.count("OSError: the lake is unavailable") == 2


def test_a_stop_ends_the_retries(unstarted: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def recover() -> None:
        raise OSError("the lake is unavailable")

    async def start_and_stop() -> None:
        task = asyncio.create_task(unstarted._tasks._recover_feedback())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(unstarted.feedback, "recover", recover)
    asyncio.run(start_and_stop())
