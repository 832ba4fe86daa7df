"""Explains an answer by each input's contribution to it."""

import asyncio
from concurrent.futures import Executor

from city.models.attribution import explained
from city.models.model import ModelError
from city.serving.answer import Answer, contributions
from city.serving.batching import Rows
from city.serving.responses import Explanation
from city.serving.versions import LoadedVersion
from city.web.problems import Problem


async def explain(version: LoadedVersion, row: Rows, answer: Answer, pool: Executor) -> Explanation:
    """Returns the response's fields that explain an answer to one row (1, inputs). The computation runs in `pool`.
    Raises Problem for a version that cannot be explained."""
    model = version.model
    if model.kind == "anomaly":
        return {"contributions": contributions(model, answer)}
    place = model.label.classes.index(str(answer.prediction)) if model.kind == "classification" else 0
    try:
        shares, base = await asyncio.get_running_loop().run_in_executor(
            pool, explained, version.exported, model, row, place
        )
    except ModelError as error:
        raise Problem(409, str(error), [("explain", "leave it out")]) from None
    return {"contributions": shares, "base": base}
