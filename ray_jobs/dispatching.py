"""The dispatcher of a stage as an actor: limits and the budget hold for all its actors, on all nodes, together."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.chat.dispatch import Ask, Dispatcher, Permit, Report
from pipeline.config import Endpoint
from pipeline.errors import StoppedError
from pipeline.stage import StageFolder
from pipeline.storage import Place
from ray_jobs import cluster

CLIENTS = 10_000
"""Calls that may be open at once: each client keeps two."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=CLIENTS)
class _Dispatcher:
    def __init__(self, endpoint: Endpoint, folder: Place) -> None:
        self._dispatcher = Dispatcher(endpoint, folder)

    async def tell(self, client: str, asks: Sequence[Ask], reports: Sequence[Report]) -> str:
        return await self._dispatcher.tell(client, asks, reports)

    async def collect(self, client: str, taken: Collection[int]) -> tuple[str, list[Permit]]:
        return await self._dispatcher.collect(client, taken)

    async def unsettled(self) -> dict[str, list[str]]:
        return await self._dispatcher.unsettled()

    async def spent_usd(self) -> float:
        return self._dispatcher.budget.spent.usd

    async def end(self) -> None:
        self._dispatcher.end(StoppedError())

    async def stop(self) -> None:
        await self._dispatcher.stop()


class RemoteDispatcher:
    """What actors ask. Picklable."""

    def __init__(self, endpoint: Endpoint, folder: Place) -> None:
        """`folder` is where the budget's journal lies."""
        self.budget_usd = endpoint.budget_usd
        # Beside the driver, where the run's root is when that is a local disk.
        self._actor: Any = _Dispatcher.options(**cluster.beside_the_driver()).remote(endpoint, folder)  # type: ignore[attr-defined]

    async def tell(self, client: str, asks: Sequence[Ask], reports: Sequence[Report]) -> str:
        """See `Dispatching`."""
        told: str = await self._actor.tell.remote(client, asks, reports)
        return told

    async def collect(self, client: str, taken: Collection[int]) -> tuple[str, list[Permit]]:
        """See `Dispatching`."""
        found: tuple[str, list[Permit]] = await self._actor.collect.remote(client, taken)
        return found

    async def unsettled(self) -> dict[str, list[str]]:
        """See `Dispatching`."""
        found: dict[str, list[str]] = await self._actor.unsettled.remote()
        return found

    def spent_usd(self) -> float:
        """Dollars that are spent, or put aside for what is under way: with a budget by earlier processes, too."""
        spent: float = ray.get(self._actor.spent_usd.remote())
        return spent

    def end(self) -> None:
        """Send nothing more: what is under way comes to its end."""
        ray.get(self._actor.end.remote())

    def stop(self) -> None:
        """Write down what was settled last."""
        ray.get(self._actor.stop.remote())


@contextmanager
def dispatcher_of(endpoint: Endpoint | None, folder: StageFolder) -> Iterator[RemoteDispatcher | None]:
    """The dispatcher of an endpoint for the time of a stage; None for none."""
    if endpoint is None:
        yield None
        return
    dispatcher = RemoteDispatcher(endpoint, folder.table("budget"))
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
