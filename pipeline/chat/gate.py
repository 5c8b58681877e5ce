"""A client's end of its dispatcher: what many requests ask and tell goes there together.

In: requests that want to go, and what came of them. Out: permits. A thousand requests a second make a hundred calls.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from itertools import count

from pipeline.chat.budget import Usage
from pipeline.chat.dispatch import Ask, Dispatcher, Dispatching, Permit, Report

TOGETHER_S = 0.005
"""What comes within this time goes in one call to a dispatcher elsewhere."""
HEARTBEAT_S = 15.0
"""A client with requests under way says at least so often that it lives."""


class Gate:
    """Use within one event loop; `close` it at the end."""

    def __init__(self, dispatcher: Dispatching) -> None:
        self._dispatcher = dispatcher
        self._together_s = 0.0 if isinstance(dispatcher, Dispatcher) else TOGETHER_S
        self._name = uuid.uuid4().hex[:12]
        self._numbers = count()
        self._asks: list[Ask] = []
        self._reports: list[Report] = []
        self._waiting: dict[int, tuple[Ask, asyncio.Future[Permit]]] = {}
        self._taken: list[int] = []
        self._told: dict[int, str] = {}
        self._under_way: set[int] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def permit(self, request_id: str, most: Usage) -> Permit:
        """A permit to send a request that uses no more than this. Raises what ends the run."""
        permitted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._ask(request_id, most, permitted)
        try:
            permit = await permitted
        except asyncio.CancelledError:
            if permitted.done() and not permitted.cancelled() and permitted.exception() is None:
                self._give_back(permitted.result())
            raise
        if permit.refused is not None:
            raise permit.refused
        self._under_way.add(permit.number)
        self._start("live", self._live)
        return permit

    def _ask(self, request_id: str, most: Usage, permitted: "asyncio.Future[Permit]") -> None:
        ask = Ask(next(self._numbers), request_id, most)
        self._waiting[ask.number] = ask, permitted
        self._asks.append(ask)
        self._start("tell", self._tell)
        self._start("listen", self._listen)

    def _give_back(self, permit: Permit) -> None:
        """Nobody wants it any more."""
        if permit.refused is None:
            self.report(Report(permit.number, permit.ticket, "failed"))

    def report(self, report: Report) -> None:
        """Say what came of a request that was sent."""
        self._under_way.discard(report.number)
        self._reports.append(report)
        self._start("tell", self._tell)

    async def close(self) -> None:
        """Tell what is left to tell."""
        if "tell" in self._tasks:
            await self._tasks["tell"]
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        if name not in self._tasks or self._tasks[name].done():
            self._tasks[name] = asyncio.create_task(self._watched(work))

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        """Where the dispatcher cannot be asked, nobody waits for its permits."""
        try:
            await work()
        except Exception as error:
            waiting, self._waiting = self._waiting, {}
            self._told.clear()
            for _, permitted in waiting.values():
                if not permitted.done():
                    permitted.set_exception(error)

    async def _tell(self) -> None:
        while self._asks or self._reports:
            await asyncio.sleep(self._together_s)
            asks, reports = self._asks, self._reports
            self._asks, self._reports = [], []
            try:
                told = await self._dispatcher.tell(self._name, asks, reports)
            except Exception:
                self._reports = reports + self._reports
                raise
            self._told.update((ask.number, told) for ask in asks if ask.number in self._waiting)

    async def _listen(self) -> None:
        while self._waiting:
            giver, permits = await self._dispatcher.collect(self._name, self._taken)
            self._taken = [permit.number for permit in permits]
            for permit in permits:
                self._told.pop(permit.number, None)
                ask, permitted = self._waiting.pop(permit.number, (None, None))
                if ask is not None and permitted is not None and not permitted.done():
                    permitted.set_result(permit)
                else:
                    self._give_back(permit)
            for number in [number for number, told in self._told.items() if told != giver]:
                ask, permitted = self._waiting.pop(number)  # who was told of it is no more
                del self._told[number]
                self._ask(ask.request_id, ask.most, permitted)

    async def _live(self) -> None:
        while self._under_way:
            await asyncio.sleep(HEARTBEAT_S)
            await self._dispatcher.tell(self._name, [], [])
