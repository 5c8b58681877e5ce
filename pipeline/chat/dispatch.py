"""Who may send a request now, and by which key: one `Dispatcher` for all clients of an endpoint, wherever they run.

In: from each client what it wants to send, and what came of what it sent. Out: permits. A permit is given once money is
put aside for the request's worst case, durably, and a key has room for it. In a job the dispatcher is an actor that all
others ask (ray_jobs/dispatching.py); a client alone has one of its own.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.chat.budget import Budget, Cost, Usage
from pipeline.chat.limits import FIRST_WINDOW, Ceiling, Charges, Limits, Mark, Signal, Window
from pipeline.config import Endpoint
from pipeline.errors import BudgetError, DataError, EndpointError, UserError
from pipeline.figures import count, dollars
from pipeline.journal import Journal, lines_of
from pipeline.storage import Place

LISTEN_S = 1.0
"""Longest that a client's question for permits stays open."""
SILENT_S = 60.0
"""A client that asks and tells nothing for so long, though it has requests under way, is taken for dead."""
DOWN_AFTER = 8
"""After so many failed connections in a row a key gets a pause."""
SURELY_DOWN = 3
"""Two connections may fail by chance, far apart, while answers are under way."""
LONGEST_PAUSE_S = 30.0
BYTES_PER_TOKEN = 4
"""Of English and of code, to guess how much of a limit a prompt takes."""
OWNER = "owner"
"""The file beside the budget's journal that names the dispatcher that may spend it."""
JOURNAL_FLUSH_S = 0.25
"""On object storage. A permit waits for it."""

Outcome = Literal["answered", "limited", "failed", "unknown", "left", "unreachable", "closed"]
"""What came of a request: an answer; a refusal for its rate; an error that nobody bills; no answer, which may be billed
all the same; nothing yet, though its asker waits no longer; no connection; a refusal that holds for every request by this
key."""

BILLED_PERHAPS = frozenset(["unknown", "answered"])
"""Where no usage is told."""


@dataclass(frozen=True)
class Ask:
    """A request that wants to be sent. `most` is the most it can use: no token is shorter than a byte."""

    number: int
    request_id: str
    most: Usage


@dataclass(frozen=True)
class Permit:
    """Ask `number` may be sent by a route, under a ticket; or never, for the reason in `refused`."""

    number: int
    route: int = 0
    ticket: str = ""
    refused: UserError | None = None


@dataclass(frozen=True)
class Report:
    """What came of ask `number`. `used` where there was an answer, `error` where the route is unreachable or closed."""

    number: int
    ticket: str
    outcome: Outcome
    used: Usage | None = None
    signals: Mapping[str, Signal] = field(default_factory=dict)
    retry_after_s: float | None = None
    error: str = ""
    perhaps_billed: bool = False
    """An error after work was done, such as one inside of a response that says that all is well."""


class Dispatching(Protocol):
    """What a client needs of a dispatcher, here or elsewhere."""

    async def tell(self, client: str, asks: Sequence[Ask], reports: Sequence[Report]) -> str:
        """Say what is wanted and what became of what was sent. Returns who was told, which a restart changes."""

    async def collect(self, client: str, taken: Collection[int]) -> tuple[str, list[Permit]]:
        """Who was asked, and permits as they are given: none where none was within LISTEN_S.

        Those whose numbers are not among the `taken` of the next call are given again: the network may have lost them.
        """

    async def unsettled(self) -> dict[str, list[str]]:
        """Requests that are paid for and have not said what they cost, with their tickets."""


@dataclass
class _Client:
    name: str
    """Another one after it was taken for dead, so that it asks again."""
    heard: float
    last: int = -1
    permits: list[Permit] = field(default_factory=list)
    shown: int = 0
    """Of the permits so many were given, but nobody has said yet that they came."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _Route:
    weight: float
    limits: Limits
    failures: int = 0
    down_since: float | None = None
    closed: str | None = None


@dataclass
class _Sent:
    """A request under way."""

    route: int
    charges: Charges
    marks: Mapping[str, Mark]
    at: float


class Dispatcher:
    """Permits for one endpoint. Its methods run in one event loop."""

    def __init__(self, endpoint: Endpoint, folder: Place | None = None) -> None:
        """`folder` holds the journal of the budget; without one the budget is kept in memory alone."""
        self._endpoint = endpoint
        now = time.monotonic()
        self._routes = [_Route(way.weight, _limits_of(way, now)) for way in endpoint.ways]
        self._limited = endpoint.budget_usd is not None or endpoint.budget_tokens is not None
        self._folder = folder if self._limited else None
        self.budget = Budget(endpoint.budget_usd, endpoint.budget_tokens)
        self._life = uuid.uuid4().hex[:12]
        self._tickets = self._names = 0
        self._journal: Journal | None = None
        self._waiting: deque[tuple[str, Ask]] = deque()
        self._clients: dict[str, _Client] = {}
        self._sent: dict[tuple[str, int], _Sent] = {}
        self._news = asyncio.Event()
        self._inherits_until = 0.0
        """Until then those who asked an earlier dispatcher may still tell what became of it."""
        self._started: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self.ended: UserError | None = None

    async def _start(self) -> None:
        """Once: take over what earlier processes spent."""
        if self._started is None or (self._started.done() and self._started.exception()):
            self._started = asyncio.create_task(self._take_over())
        await asyncio.shield(self._started)

    async def _take_over(self) -> None:
        if self._folder is not None:
            # Whoever held the budget before sees it before a permit of theirs counts, or their line is among those read.
            await asyncio.to_thread((self._folder / OWNER).write, self._life.encode())
            self.budget.replay(await asyncio.to_thread(list, lines_of(self._folder)))
            self._journal = Journal(self._folder, self._life, JOURNAL_FLUSH_S)
            if self.budget.open_requests():
                self._inherits_until = time.monotonic() + SILENT_S

    def end(self, reason: UserError) -> None:
        """Send nothing more: whoever asks from now on is refused with the reason."""
        self.ended = self.ended or reason
        self._news.set()

    async def stop(self) -> None:
        """Write down what was settled last."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._write_down()
        if self._journal is not None:
            await self._journal.close()

    async def tell(self, client: str, asks: Sequence[Ask], reports: Sequence[Report]) -> str:
        """Say what is wanted and what became of what was sent. Returns who was told, which a restart changes."""
        await self._start()
        now = time.monotonic()
        known = self._client(client)
        for report in reports:
            self._settle(client, report, now)
        new = [ask for ask in asks if ask.number > known.last]  # Ray may repeat a call
        known.last = max((ask.number for ask in new), default=known.last)
        self._waiting.extend((client, ask) for ask in new)
        self._news.set()
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())
        return known.name

    def _client(self, name: str) -> _Client:
        now = time.monotonic()
        if name not in self._clients:
            self._names += 1
            self._clients[name] = _Client(f"{self._life}.{self._names}", now)
        self._clients[name].heard = now
        return self._clients[name]

    async def unsettled(self) -> dict[str, list[str]]:
        """Requests that are paid for and have not said what they cost, with their tickets."""
        await self._start()
        return self.budget.open_requests() if self._limited else {}

    async def collect(self, client: str, taken: Collection[int]) -> tuple[str, list[Permit]]:
        """Who was asked, and permits as they are given: none where none was within LISTEN_S. See `Dispatching`."""
        mine = self._client(client)
        came = set(taken)
        lost = [permit for permit in mine.permits[: mine.shown] if permit.number not in came]
        mine.permits[: mine.shown] = lost
        if not mine.permits:
            mine.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(mine.news.wait(), LISTEN_S)
        mine.shown = len(mine.permits)
        return mine.name, list(mine.permits)

    async def _work(self) -> None:
        while self._waiting:
            self._news.clear()
            permits, wait_s = self._permits(time.monotonic())
            if permits:
                try:
                    await self._write_down()
                except Exception as error:
                    self.ended = error if isinstance(error, UserError) else DataError(f"the budget's journal: {error}")
                    permits = [(client, Permit(permit.number, refused=self.ended)) for client, permit in permits]
                for client, permit in permits:
                    self._clients[client].permits.append(permit)
                    self._clients[client].news.set()
            if self._waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), min(wait_s, LISTEN_S))
                self._bury_the_silent(time.monotonic())

    async def _write_down(self) -> None:
        if self._journal is None or self._folder is None:
            self.budget.forget()
        elif line := self.budget.line():
            await self._journal.append(line)
            if (await asyncio.to_thread((self._folder / OWNER).read)).decode() != self._life:
                raise DataError(
                    f"another process took over the budget in {self._folder.uri!r}: does the same run go on "
                    "elsewhere? It keeps what is stored: end one of the two"
                )

    def _permits(self, now: float) -> tuple[list[tuple[str, Permit]], float]:
        """All that may go now, in the order in which they were asked for, and the seconds until the next one may."""
        given: list[tuple[str, Permit]] = []
        wait_s = float("inf")
        while self._waiting:
            client, ask = self._waiting[0]
            worst = ask.most.worst_cost(self._endpoint.price)
            charges = Charges(ask.most.prompt / BYTES_PER_TOKEN, ask.most.completion)
            self.ended = self.ended or self._end(worst)
            if self.ended:
                given.append((client, Permit(ask.number, refused=self.ended)))
                self._waiting.popleft()
                continue
            if not self.budget.fits(worst):
                break
            wait_s, route = self._way_for(charges, now)
            if wait_s > 0:
                break
            self._waiting.popleft()
            self._tickets += 1
            ticket = f"{self._life}.{self._tickets}"
            self.budget.reserve(ticket, ask.request_id, worst)
            marks = self._routes[route].limits.take(charges, now)
            self._sent[client, ask.number] = _Sent(route, charges, marks, now)
            given.append((client, Permit(ask.number, route, ticket)))
        return given, wait_s

    def _way_for(self, charges: Charges, now: float) -> tuple[float, int]:
        """The least wait, and the route that has it: of several the one with the least under way for its weight."""
        waits = [
            (route.limits.wait_s(charges, now), (route.limits.in_flight + 1) / route.weight, index)
            for index, route in enumerate(self._routes)
            if route.closed is None
        ]
        wait_s, _, index = min(waits)
        return wait_s, index

    def _end(self, worst: Cost) -> UserError | None:
        """Why no request will be sent any more, if so."""
        if all(route.closed is not None for route in self._routes):
            return EndpointError(self._routes[0].closed or "")
        under_way = self._sent or time.monotonic() < self._inherits_until
        if self.budget.fits(worst) or (under_way and self.budget.may_fit(worst)):
            return None
        spent, most = self.budget.spent, self._endpoint
        limit = f"budget_usd {dollars(most.budget_usd)}" if most.budget_usd is not None else ""
        limit += " and " if limit and most.budget_tokens is not None else ""
        limit += f"budget_tokens {count(most.budget_tokens)}" if most.budget_tokens is not None else ""
        return BudgetError(
            f"the budget of {most.model!r} is reached ({limit}): {dollars(spent.usd)} and {count(spent.tokens)} tokens are "
            f"spent, and one more request may take {dollars(worst.usd)} and {count(worst.tokens)} tokens: what was bought "
            "is kept: raise the budget and run the same again"
        )

    def _settle(self, client: str, report: Report, now: float) -> None:
        if report.used is not None:
            self.budget.settle(report.ticket, report.used.cost(self._endpoint.price))
        elif report.outcome in BILLED_PERHAPS or report.perhaps_billed:
            self.budget.settle_at_worst(report.ticket)
        elif report.outcome != "left":
            self.budget.settle(report.ticket, Cost())
        sent = self._sent.pop((client, report.number), None)
        if sent is None:  # its permit was given by a dispatcher that is no more
            return
        route = self._routes[sent.route]
        if report.outcome == "unreachable":
            route.failures += 1
            route.down_since = route.down_since or now
            if route.failures >= SURELY_DOWN and now - route.down_since > self._endpoint.unreachable_s:
                route.closed = report.error
            if route.failures >= DOWN_AFTER:
                pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(route.failures - DOWN_AFTER, 10))
                route.limits.paused_until = max(route.limits.paused_until, now + pause_s)
        elif report.outcome != "unknown":
            route.failures, route.down_since = 0, None
        if report.outcome == "closed":
            route.closed = report.error
        if report.outcome == "answered":
            used = Charges(report.used.prompt, report.used.completion) if report.used else None
            route.limits.answered(sent.marks, sent.charges, used, report.signals, now)
        elif report.outcome == "limited":
            route.limits.refused(sent.marks, sent.charges, report.signals, sent.at, report.retry_after_s, now)
        else:
            route.limits.failed()

    def _bury_the_silent(self, now: float) -> None:
        """Give back the places of clients that died. Their money stays put aside."""
        for name, client in list(self._clients.items()):
            if now - client.heard > SILENT_S:
                for permit in client.permits[client.shown :]:  # it never went out
                    self.budget.settle(permit.ticket, Cost())
                for key in [key for key in self._sent if key[0] == name]:
                    self._routes[self._sent.pop(key).route].limits.failed()
                self._waiting = deque(each for each in self._waiting if each[0] != name)
                del self._clients[name]


def _limits_of(way: Endpoint, now: float) -> Limits:
    settings = way.limits
    per_minute = {
        "requests": settings.requests_per_minute,
        "tokens": settings.tokens_per_minute,
        "input_tokens": settings.input_tokens_per_minute,
        "output_tokens": settings.output_tokens_per_minute,
    }
    ceilings = {kind: Ceiling(limit, 60.0, now) for kind, limit in per_minute.items() if limit is not None}
    first = settings.concurrent if way.batch else FIRST_WINDOW  # those of a batch are under way together
    return Limits(Window(settings.concurrent, first), ceilings)
