"""The route by which events come in over HTTP, for senders without a broker."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated

from confluent_kafka import KafkaException
from fastapi import APIRouter, Depends, Path, Request, Response

from city.server.state import City
from city.settings import Settings
from city.sources.bodies import MEDIA, BodyError, split_body
from city.sources.model import SourceError
from city.streaming.intake import IngestReceipt, Intake, NotConfirmed
from city.streaming.topics import MissingTopics
from city.web.guard import needs
from city.web.problems import Problem
from city.web.responses import DeclaredResponse

_MOST_SHOWN, _MOST_WAITING = 100, 32
_NAME = Path(description="a source, or a contract or its topic", pattern=r"^[A-Za-z0-9._-]{1,249}$")


class OffsetsResponse(DeclaredResponse):
    """Where events are in Kafka."""

    topic: str
    partition: int
    first: int
    last: int


class RejectedResponse(DeclaredResponse):
    """A message of which not every event was taken."""

    message: int
    """The place of the message in the body, from 0 on."""
    reasons: list[str]


class ReceiptResponse(DeclaredResponse):
    """What became of the messages of a request."""

    accepted: int
    """The number of events that Kafka has. A message of a source can be several."""
    rejected: int
    """The number of messages against which there are reasons."""
    offsets: list[OffsetsResponse]
    reasons: list[RejectedResponse]
    """The first hundred of the rejected."""


class _Ingest:
    """Takes bodies in threads of its own.

    While Kafka is away, a request occupies its thread for seconds. Predictions use the other threads.
    """

    def __init__(self, config: Settings) -> None:
        self._config, self._lock = config, threading.Lock()
        self._pool, self._waiting = ThreadPoolExecutor(4, "ingest"), 0
        self._intake: Intake | None = None

    async def run(self, name: str, body: bytes, media: str) -> IngestReceipt:
        """Sends a body's messages. Raises Problem while too many requests wait."""
        if self._waiting >= _MOST_WAITING:
            raise Problem(503, "too many requests wait for Kafka: try again", headers={"retry-after": "5"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._take, name, body, media)
        finally:
            self._waiting -= 1

    def _take(self, name: str, body: bytes, media: str) -> IngestReceipt:
        intake = self._open_intake()
        target = intake.target(name)
        messages = split_body(body, media, target)
        return intake.take(target, messages, datetime.now(UTC))

    def _open_intake(self) -> Intake:
        with self._lock:
            if self._intake is None:  # a producer is a connection and three threads, which few cities need
                self._intake = Intake(self._config)
            return self._intake

    def close(self) -> None:
        """Waits for the requests that are being taken, and for what is on its way to Kafka."""
        self._pool.shutdown(cancel_futures=True)
        if self._intake is not None:
            self._intake.close()


def router(city: City) -> APIRouter:
    """Returns the route `/ingest/{name}`, which needs the role client."""
    routes = APIRouter(tags=["the city"])
    ingests = _Ingest(city.config)
    city.closers.append(ingests.close)

    @routes.post(
        "/ingest/{name}",
        summary="Send events: JSON (one or a list), NDJSON or CSV",
        dependencies=[Depends(needs("client"))],
        responses={422: {"model": ReceiptResponse}},
        openapi_extra={"requestBody": {"required": True, "content": {media: {} for media in MEDIA}}},
    )
    async def ingest(name: Annotated[str, _NAME], request: Request, response: Response) -> ReceiptResponse:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            receipt = await ingests.run(name, await request.body(), media)
        except SourceError as error:
            raise Problem(404, str(error)) from None
        except BodyError as error:
            raise Problem(415 if media not in MEDIA else 422, str(error)) from None
        except MissingTopics as error:
            raise Problem(503, str(error)) from None
        except NotConfirmed as error:
            raise Problem(503, str(error), headers={"retry-after": "5"}) from None
        except KafkaException as error:
            raise Problem(503, f"Kafka at {city.config.kafka} does not take it: {error.args[0].str()}") from None
        response.status_code = 422 if receipt.rejected and not receipt.accepted else 200
        return ReceiptResponse(
            accepted=receipt.accepted,
            rejected=len(receipt.rejected),
            offsets=[
                OffsetsResponse(topic=topic, partition=partition, first=first, last=last)
                for topic, partitions in receipt.offsets.items()
                for partition, (first, last) in sorted(partitions.items())
            ],
            reasons=[
                RejectedResponse(message=number, reasons=reasons)
                for number, reasons in list(receipt.rejected.items())[:_MOST_SHOWN]
            ],
        )

    return routes
