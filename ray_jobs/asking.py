"""What the stages that ask models have in common: a dispatcher for the stage, and for each actor a client and a store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pipeline import log
from pipeline.chat import ChatClient, preflight
from pipeline.config import Config, Endpoint
from pipeline.errors import UserError
from pipeline.responses import Segment
from pipeline.stage import StageFolder
from pipeline.storage import Place
from ray_jobs import cluster, stopping
from ray_jobs.dispatching import RemoteDispatcher, dispatcher_of
from ray_jobs.progress import Progress, Reporter

A = TypeVar("A")
R = TypeVar("R")

BATCH_ROWS = 128
"""Rows an actor asks about at once (Ray Data keeps several batches under way in an actor)."""


def batch_rows(endpoint: Endpoint) -> int:
    """The same, where a provider wants as many as possible in one of its own batches."""
    return endpoint.batch.max_requests if endpoint.batch else BATCH_ROWS


class Asker:
    """An actor's way to a model. Made in the actor's constructor, used in its event loop."""

    def __init__(
        self, endpoint: Endpoint, responses: Place, reporter: Reporter, dispatcher: RemoteDispatcher | None
    ) -> None:
        self._endpoint, self._responses, self._reporter, self._dispatcher = endpoint, responses, reporter, dispatcher
        self._batches = 0
        self._doors = asyncio.Lock()
        self._reported: dict[str, float] = {}

    @cached_property
    def _client(self) -> ChatClient:
        """Made by the first batch: of a key that this node lacks a constructor would tell with a traceback of Ray's."""
        return ChatClient(self._endpoint, self._dispatcher, self._responses)

    async def each(
        self, rows: Sequence[A], key: Callable[[A], str], ask: Callable[[A, ChatClient, Segment], Awaitable[R]]
    ) -> list[R]:
        """What all rows of a batch give, asked at once; `key` is what a row's answers are stored by.

        What ends the run is told to the driver, and the rows that it left undone are missing: those under way in other
        batches and actors are paid for, and come to their end.
        """
        if not rows:
            return []
        keys = [key(row) for row in rows]

        async def one(row: A, row_id: str) -> R:
            with log.about(row=row_id):
                return await ask(row, client, segment)

        results: list[R | BaseException]
        try:
            async with self._batch(min(keys), max(keys)) as (client, segment):
                results = await asyncio.gather(*map(one, rows, keys), return_exceptions=True)
        except UserError as error:  # of the client's or the store's
            results = [error]
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, UserError):
                raise result
        for mistake in [result for result in results if isinstance(result, UserError)][:1]:
            await self._reporter.tell(mistake)
        return [result for result in results if not isinstance(result, BaseException)]

    @asynccontextmanager
    async def _batch(self, first: str, last: str) -> AsyncIterator[tuple[ChatClient, Segment]]:
        """Client and store. Batches under way share the connections."""
        async with self._doors:
            if self._batches == 0:
                self._reporter.works_in(asyncio.get_running_loop())
                await self._client.__aenter__()
            self._batches += 1
        try:
            async with Segment(self._responses, first, last) as segment:
                yield self._client, segment
        finally:
            async with self._doors:
                self._batches -= 1
                if self._batches == 0:
                    await self._client.__aexit__()
            await self._reporter.settle()

    def report(self, *, done: int = 1, **figures: float) -> None:
        """Rows are done: tell the driver, with what the client counted since the last ones."""
        counted = {**self._client.counts, "usd": self._client.usd}
        news = {name: count - self._reported.get(name, 0) for name, count in counted.items()}
        self._reported = counted
        self._reporter.add(done=done, **figures, **news)


@contextmanager
def dispatched(
    config: Config, stage: Literal["reformat", "distill", "verify"], endpoint: Endpoint | None, folder: StageFolder
) -> Iterator[RemoteDispatcher | None]:
    """The dispatcher of a stage that asks a model, if any: once that answers, and the cluster has room for the actors."""
    if endpoint is not None:
        asyncio.run(preflight(endpoint))
    cluster.connect()
    require_askers(config, stage, endpoint)
    with dispatching(endpoint, folder) as dispatcher:
        yield dispatcher


def require_askers(
    config: Config, stage: Literal["reformat", "distill", "verify", "evaluate"], endpoint: Endpoint | None
) -> None:
    """Require room for a stage's actors, where they reach its model: one that is replayed may be on the driver's machine alone."""
    cluster.require_actors(config, stage)
    if endpoint is not None and endpoint.replay:
        command = (
            f"longthought teacher --replay {endpoint.replay} --host 0.0.0.0 --port {urlsplit(endpoint.base_url).port}"
        )
        cluster.require_reach(config, endpoint.base_url, f"start `{command}` and name that machine in base_url")


@contextmanager
def dispatching(endpoint: Endpoint | None, folder: StageFolder) -> Iterator[RemoteDispatcher | None]:
    """The dispatcher of an endpoint, if any. A stop lets what it has sent come to its end, for that is paid for."""
    with dispatcher_of(endpoint, folder) as dispatcher:
        # A provider's batch may take a day, and is found again by the next run.
        end = dispatcher.end if dispatcher and endpoint and endpoint.batch is None else None
        with stopping.ends_by(end):
            yield dispatcher


def requests_made(progress: Progress) -> dict[str, int]:
    """Requests sent and replies taken from the store, as a manifest wants them."""
    figures = progress.figures()
    return {"requests": int(figures.get("requests", 0)), "stored_replies": int(figures.get("stored", 0))}


def usage(progress: Progress) -> dict[str, float]:
    """Tokens and dollars of all replies, new and stored, as a manifest wants them, where no table of traces has them."""
    figures = progress.figures()
    return {
        "prompt_tokens": int(figures.get("prompt_tokens", 0)),
        "completion_tokens": int(figures.get("tokens", 0)),
        "cost_usd": round(float(figures.get("usd", 0)), 6),
    }
