"""Asks a model: many requests at a time, each tried again while that may help, replies durable and counted."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

import aiohttp

from pipeline import log
from pipeline.chat.batches import Batches, NotSubmittedError
from pipeline.chat.dispatch import Dispatcher, Dispatching, Permit, Report
from pipeline.chat.gate import Gate
from pipeline.chat.reach import authorization, is_loopback, key_of, unreachable
from pipeline.chat.requests import Request, completion_request, most_usage
from pipeline.chat.streams import Assembly
from pipeline.chat.traces import Outcome, cost_usd, usage_of
from pipeline.chat.wire import Failure, Reader, signals_in
from pipeline.config import Endpoint
from pipeline.errors import EndpointError, UserError
from pipeline.responses import Reply, Segment
from pipeline.storage import Place

R = TypeVar("R")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CONNECT_S = 30.0
"""Longest wait for a connection; a firewall that drops packets gives no other sign."""

TIMEOUT_ATTEMPTS = 2
"""How often an answer that does not come in time is asked for: each such request may have been paid."""
UNREADABLE_ATTEMPTS = 4
"""The same for an answer that cannot be read."""


class RequestError(Exception):
    """One request failed; others may succeed."""


class ChatClient:
    """Asks one endpoint, at most `max_in_flight` requests at a time. Use as an async context manager.

    `counts` has `requests` (sent), `stored` (answered by the store), `retries`, each kind of failure, and of all answers,
    new and stored, the `prompt_tokens` and `tokens` (of the answers); `usd` is what they cost.
    """

    def __init__(self, endpoint: Endpoint, dispatcher: Dispatching | None = None, folder: Place | None = None) -> None:
        """Limits and budget are the dispatcher's, which clients may share; without one they hold for this client.

        `folder` remembers what was submitted, where the endpoint is asked in batches.
        """
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        self.usd = 0.0
        self._dispatcher: Dispatching = dispatcher or Dispatcher(endpoint)
        self._ways = endpoint.ways
        self._keys = [key_of(way) for way in self._ways]
        self._readers = [Reader(way, key) for way, key in zip(self._ways, self._keys, strict=True)]
        self._headers = [{"Content-Type": "application/json", **authorization(key)} for key in self._keys]
        self._buying: dict[str, asyncio.Future[Reply | None]] = {}
        self._broken: UserError | None = None
        self._places = asyncio.Semaphore(endpoint.batch.max_requests if endpoint.batch else endpoint.max_in_flight)
        self._batches = None
        if endpoint.batch and folder:
            self._batches = Batches(endpoint, endpoint.batch, folder, self._readers[0], self._headers[0])
        self._tokens: WeakKeyDictionary[Segment, dict[str, asyncio.Task[list[int]]]] = WeakKeyDictionary()

    async def __aenter__(self) -> "ChatClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            read_bufsize=1 << 20,  # also the longest line of a stream
            timeout=aiohttp.ClientTimeout(
                total=None if self.endpoint.stream else self.endpoint.timeout_s,
                sock_read=self.endpoint.timeout_s,
                sock_connect=min(CONNECT_S, self.endpoint.unreachable_s),
            ),
            trust_env=not all(is_loopback(way.base_url) for way in self._ways),
        )
        if self._batches:
            self._batches.open(self._session)
        self._gate = Gate(self._dispatcher)
        self._unsettled = await self._dispatcher.unsettled()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._batches:
            await self._batches.close()
        await self._gate.close()
        await self._session.close()

    async def buy(self, request: Request, segment: Segment | None) -> Outcome:
        """The stored reply where there is one, else a new one, which is durable when this returns.

        Without a segment nothing is stored: for questions that must be asked anew.

        Raises EndpointError where every request would fail (a wrong key, an unknown model, nobody there), BudgetError
        where it might cost more than is left.
        """
        if segment is None:
            return await self._bought(request, None)
        while (stored := segment.get(request.request_id)) is None:
            same = self._buying.get(request.request_id)
            if same is None:
                return await self._bought(request, segment)
            bought = await asyncio.shield(same)  # where it comes to nothing it is asked for again
            if bought is not None and segment.get(request.request_id) is None:
                await self._store(segment, bought)
        return self._found(request, stored)

    async def _bought(self, request: Request, segment: Segment | None) -> Outcome:
        reply: Reply | None = None
        done: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        if segment:
            self._buying[request.request_id] = done
        try:
            async with self._places:
                outcome = await self._ask(request)
            if outcome.reply:
                if segment:
                    await self._store(segment, outcome.reply)
                self._count(outcome.reply)
            reply = outcome.reply
            return outcome
        finally:
            done.set_result(reply)
            if segment:
                del self._buying[request.request_id]

    async def answer(self, request: Request, segment: Segment) -> Reply:
        """The answer to a request that is a part of another one's. Raises RequestError where it fails."""
        outcome = await self.buy(request, segment)
        if outcome.reply is None:
            raise RequestError(outcome.error or "no answer")
        return outcome.reply

    def _found(self, request: Request, stored: Reply) -> Outcome:
        self.counts["stored"] += 1
        self._count(stored)
        # Bought by a process that was killed. Of several tickets the answer is one's; the others may be billed as well.
        tickets = self._unsettled.pop(request.request_id, [])
        for ticket in tickets[:-1]:
            self._gate.report(Report(-1, ticket, "unknown"))
        for ticket in tickets[-1:]:
            self._gate.report(Report(-1, ticket, "answered", usage_of(stored)))
        return Outcome(stored, stored=True)

    async def _store(self, segment: Segment, reply: Reply) -> None:
        try:
            await segment.put(reply)
        except UserError as error:  # what cannot be stored is not bought
            self._broken = error
            raise

    def _count(self, reply: Reply) -> None:
        self.counts.update(prompt_tokens=reply.prompt_tokens, tokens=reply.completion_tokens)
        self.usd += cost_usd(reply, self.endpoint.price)

    async def tokenize(self, text: str, segment: Segment) -> list[int]:
        """The token ids of a text without special tokens, by the one way that every front of vLLM passes through.

        Raises EndpointError where the endpoint does not tell token ids, RequestError where the request fails.
        """
        tokens = self._tokens.setdefault(segment, {})
        if text not in tokens:  # asked once for each segment, however many want it at the same time
            tokens[text] = asyncio.create_task(self._tokenize(text, segment))
        try:
            return await tokens[text]
        except RequestError:
            tokens.pop(text, None)
            raise

    async def _tokenize(self, text: str, segment: Segment) -> list[int]:
        request = completion_request(
            self.endpoint.model, text, 1, temperature=0, return_token_ids=True, add_special_tokens=False
        )
        reply = await self.answer(request, segment)
        if not reply.prompt_token_ids:
            raise EndpointError(
                f"{self.endpoint.base_url} does not tell token ids (no prompt_token_ids in its answer): is it a vLLM server?"
            )
        return reply.prompt_token_ids

    async def _ask(self, request: Request) -> Outcome:
        failures: Counter[str] = Counter()
        most = most_usage(request)
        if self._batches:  # its batch, if it went out, is collected under the next permit
            for ticket in self._unsettled.pop(request.request_id, ()):
                self._gate.report(Report(-1, ticket, "failed"))
        while True:
            if self._broken is not None:
                raise self._broken
            permit = await self._gate.permit(request.request_id, most)
            self.counts["requests"] += 1
            try:
                answer, report = await (self._submit if self._batches else self._post)(request, permit)
            except BaseException as error:
                unpaid = isinstance(error, NotSubmittedError)
                # What was submitted goes on: the next run asks for it, and settles.
                self._gate.report(
                    Report(permit.number, permit.ticket, "failed" if unpaid else "left" if self._batches else "unknown")
                )
                raise
            self._gate.report(report)
            if isinstance(answer, Reply):
                return Outcome(answer)
            failures[answer.kind] += 1
            self.counts[answer.kind] += 1
            if answer.meaning == "row":
                return _given_up(request, answer.error)
            if answer.meaning == "end_of_route":
                continue  # by another one, or the next permit says that there is none
            tries = failures.total()
            unreadable = failures["malformed"] + failures["no_choices"]
            late = failures["timeout"] >= TIMEOUT_ATTEMPTS or unreadable >= UNREADABLE_ATTEMPTS
            if tries >= self.endpoint.max_attempts or late:
                return _given_up(request, f"{answer.error}, {tries} times")
            self.counts["retries"] += 1
            if report.outcome != "limited":  # a limit that is met is no event
                log.warn("asked again", request=request.request_id, tries=tries, error=answer.error)
            waited_for = report.outcome == "limited" and answer.retry_after_s
            if not waited_for:  # else the dispatcher waits, or takes another route
                await asyncio.sleep(max(_pause(tries - 1), answer.retry_after_s or 0.0))

    async def _post(self, request: Request, permit: Permit) -> tuple[Reply | Failure, Report]:
        route, started = permit.route, time.monotonic()
        way = self._ways[route]
        body = request.body if way.model == self.endpoint.model else {**request.body, "model": way.model}
        said = partial(Report, permit.number, permit.ticket)
        if self.endpoint.stream and request.path == "chat/completions":
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        reader = self._readers[route]
        try:
            async with self._session.post(
                f"{way.base_url.rstrip('/')}/{request.path}",
                data=json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
                headers={**self._headers[route], "X-Client-Request-Id": request.request_id},
            ) as response:
                headers = response.headers
                if response.status == 200 and headers.get("Content-Type", "").startswith("text/event-stream"):
                    stream = await self._stream(response)
                    answer = reader.read_body(request, stream.body, time.monotonic() - started)
                else:
                    received = await response.read()
                    answer = reader.read(request, response.status, headers, received, time.monotonic() - started)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            nobody = str(unreachable(way, error))
            return Failure("connection", "retry", f"no connection: {error}"), said("unreachable", error=nobody)
        except TimeoutError:
            late = f"no answer within {self.endpoint.timeout_s:g} s"
            return Failure("timeout", "retry", late), said("unknown")
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # a line of a stream
            return Failure("malformed", "retry", f"a malformed answer ({type(error).__name__})"), said("unknown")
        except (aiohttp.ClientError, ConnectionError) as error:
            lost = f"connection lost: {type(error).__name__}"
            return Failure("connection", "retry", lost), said("unknown")
        signals = signals_in(headers)
        if isinstance(answer, Reply):
            return answer, said("answered", usage_of(answer), signals)
        return answer, said(answer.outcome, None, signals, answer.retry_after_s, answer.error, answer.perhaps_billed)

    async def _submit(self, request: Request, permit: Permit) -> tuple[Reply | Failure, Report]:
        assert self._batches is not None
        answer = await self._batches.ask(request)
        if isinstance(answer, Reply):
            return answer, Report(permit.number, permit.ticket, "answered", usage_of(answer))
        billed = answer.perhaps_billed
        return answer, Report(permit.number, permit.ticket, answer.outcome, error=answer.error, perhaps_billed=billed)

    async def _stream(self, response: aiohttp.ClientResponse) -> Assembly:
        """Read a stream to its end. Where nothing but keep-alive lines comes for `timeout_s` it is given up."""
        assembly = Assembly()
        async with asyncio.timeout(self.endpoint.timeout_s) as patience:
            async for line in response.content:
                if assembly.add(line):
                    patience.reschedule(asyncio.get_running_loop().time() + self.endpoint.timeout_s)
        return assembly


def _given_up(request: Request, error: str) -> Outcome:
    log.warn("given up", request=request.request_id, error=error)
    return Outcome(None, error)


def _pause(attempt: int) -> float:
    """Full jitter on a doubling pause, so that clients that failed together do not come back together."""
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))


async def all_of(rows: Iterable[Awaitable[R]]) -> list[R]:
    """What all rows give. Where one ends the run, the others under way are still awaited: they are paid for."""
    results = await asyncio.gather(*rows, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
