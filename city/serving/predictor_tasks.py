"""Runs the predictor's background tasks: what is loaded after the start, and what is saved from time to time."""

import asyncio
import gc
import logging

from tenacity import AsyncRetrying, RetryCallState, wait_fixed

from city.models.model import ModelError
from city.models.registry import RegistryAway
from city.serving.feedback import Feedback
from city.serving.outcome_scores import OutcomeScores
from city.serving.routing import PLATFORM, Routes
from city.serving.trial import Experiment
from city.serving.versions import Versions

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_AGAIN_SECONDS = 2.0
_SCORES_SECONDS = 5.0


class PredictorTasks:
    """Loads versions and outcomes, and saves the counts of experiments and the scores of versions."""

    def __init__(self, versions: Versions, routes: Routes, scores: OutcomeScores, feedback: Feedback) -> None:
        self._versions, self._routes, self._scores, self._feedback = versions, routes, scores, feedback
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the tasks in the running event loop."""
        loops = (self._recover_feedback, self._open_versions, self._save_routes, self._save_scores)
        self._tasks = [asyncio.create_task(loop()) for loop in loops]
        for task in self._tasks:
            task.add_done_callback(_log_task_error)

    def stop(self) -> None:
        """Cancels the tasks."""
        for task in self._tasks:
            task.cancel()

    async def _recover_feedback(self) -> None:
        """Takes over the outcomes of an earlier process. Until that is complete, no feedback is accepted, while
        predictions are answered."""
        # Any error is retried: the lake is unavailable, or has data of another release.
        async for attempt in AsyncRetrying(wait=wait_fixed(_AGAIN_SECONDS), before_sleep=_log_unread_feedback):
            with attempt:
                await self._feedback.recover()

    async def _open_versions(self) -> None:
        """Loads the champions and the versions of running experiments."""
        await self._versions.start()
        await asyncio.gather(*(self._open_experiment(*item) for item in self._routes.experiments().items()))
        # Imported modules are never garbage. Scanning them at each collection would delay requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    async def _open_experiment(self, name: str, experiment: Experiment) -> None:
        """Loads the experiment's version. Only a version that does not exist ends the experiment; while the registry is
        unavailable, the load is retried."""
        while self._routes.experiment(name) is experiment:
            try:
                await self._versions.version(name, experiment.version)
                return
            except RegistryAway as error:
                log.warning("the experiment of %s waits: %s", name, error)
                await asyncio.sleep(_AGAIN_SECONDS)
            except ModelError as error:
                if self._routes.experiment(name) is experiment:
                    self._routes.remove(name, PLATFORM, str(error))

    async def _save_routes(self) -> None:
        """Saves the counts of experiments every second. A killed server loses the requests and failures of the last
        second. It loses no outcomes, because they are counted again from their record."""
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            if (snapshot := self._routes.changed_snapshot()) is not None:
                await asyncio.to_thread(self._routes.write, snapshot)

    async def _save_scores(self) -> None:
        """Saves the scores of versions every few seconds. A killed server loses the effect of the last seconds'
        outcomes on the scores, but no outcome."""
        while True:
            await asyncio.sleep(_SCORES_SECONDS)
            await asyncio.to_thread(self._scores.save)


def _log_unread_feedback(state: RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    log.warning("cannot read the outcomes of the previous process: %s: %s", type(error).__name__, error)


def _log_task_error(task: "asyncio.Task[None]") -> None:
    """Logs the exception that ended a background task. No other code awaits the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the server has ended", exc_info=error)
