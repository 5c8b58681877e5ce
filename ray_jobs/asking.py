"""What the actors that ask models have in common: a client, a grader, a segment of the store for each batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from pipeline.chat import ChatClient, preflight
from pipeline.config import Config, Endpoint
from pipeline.responses import Segment
from pipeline.storage import Place
from ray_jobs import cluster
from ray_jobs.progress import Progress, Reporter

COUNTED = ("requests", "stored", "retries", "prompt_tokens", "tokens")

BATCH_ROWS = 128
"""Rows an actor asks about at once (Ray Data keeps several batches under way in an actor)."""


class Asker:
    """An actor's way to a model. Made in the actor's constructor, used in its event loop."""

    def __init__(self, endpoint: Endpoint, responses: Place, reporter: Reporter) -> None:
        self._responses, self._reporter = responses, reporter
        self._client = ChatClient(endpoint)
        self._batches = 0
        self._reported: dict[str, float] = {}

    @asynccontextmanager
    async def batch(self, keys: Sequence[str]) -> AsyncIterator[tuple[ChatClient, Segment]]:
        """Client and store for a batch of rows with these keys. Batches under way share the connections."""
        if self._batches == 0:
            await self._client.__aenter__()
        self._batches += 1
        try:
            with self._reporter.telling():
                async with Segment(self._responses, min(keys), max(keys)) as segment:
                    yield self._client, segment
        finally:
            self._batches -= 1
            if self._batches == 0:
                await self._client.__aexit__()
            await self._reporter.settle()

    def report(self, *, done: int = 1, **figures: float) -> None:
        """Rows are done: tell the driver, with what the client counted since the last ones."""
        counted = {**{name: self._client.counts[name] for name in COUNTED}, "usd": self._client.usd}
        news = {name: count - self._reported.get(name, 0) for name, count in counted.items()}
        self._reported = counted
        self._reporter.add(done=done, **figures, **news)


def open_for_asking(config: Config, stage: Literal["reformat", "distill", "verify"], endpoint: Endpoint | None) -> None:
    """Everything a stage that asks a model needs: the model, if any, answers, and the cluster has room for the actors."""
    if endpoint is not None:
        asyncio.run(preflight(endpoint))
    cluster.connect()
    cluster.require_actors(config, stage)


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
