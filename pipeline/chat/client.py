"""Asks one endpoint: many requests at a time, each tried again while that may help, replies durable and counted."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import TypeVar
from weakref import WeakKeyDictionary

import aiohttp

from pipeline.chat.reach import authorization, key_of, unreachable
from pipeline.chat.requests import Request, completion_request
from pipeline.chat.traces import Outcome, cost_usd
from pipeline.chat.wire import Failure, Reader
from pipeline.config import Endpoint
from pipeline.errors import EndpointError
from pipeline.responses import Reply, Segment

R = TypeVar("R")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LONGEST_RETRY_AFTER_S = 300.0
CONNECT_S = 30.0
"""Longest wait for a connection; a firewall that drops packets gives no other sign."""

TIMEOUT_ATTEMPTS = 2
"""How often an answer that does not come in time is asked for: each such request may have been paid."""


class ChatClient:
    """Asks one endpoint, at most `max_in_flight` requests at a time. Use as an async context manager.

    `counts` has `requests` (sent), `stored` (answered by the store), `retries`, each kind of failure, and of all answers,
    new and stored, the `prompt_tokens` and `tokens` (of the answers); `usd` is what they cost.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        self.usd = 0.0
        self._key = key_of(endpoint)
        self._reader = Reader(endpoint, self._key)
        self._places = asyncio.Semaphore(endpoint.max_in_flight)
        self._unreachable_since: float | None = None
        self._tokens: WeakKeyDictionary[Segment, dict[str, asyncio.Task[list[int]]]] = WeakKeyDictionary()
        self._ended: EndpointError | None = None

    async def __aenter__(self) -> "ChatClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(
                total=self.endpoint.timeout_s, sock_connect=min(CONNECT_S, self.endpoint.unreachable_s)
            ),
            headers={"Content-Type": "application/json", **authorization(self._key)},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def buy(self, request: Request, segment: Segment | None) -> Outcome:
        """The stored reply where there is one, else a new one, which is durable when this returns.

        Without a segment nothing is stored: for questions that must be asked anew.

        Raises EndpointError where every request would fail: a wrong key, an unknown model, nobody there.
        """
        stored = segment.get(request.request_id) if segment else None
        if stored is not None:
            self.counts["stored"] += 1
            self._count(stored)
            return Outcome(stored, stored=True)
        async with self._places:
            if self._ended:  # what ends the run is not asked for again by every request that waited
                raise self._ended
            try:
                outcome = await self._ask(request)
            except EndpointError as error:
                self._ended = error
                raise
        if outcome.reply:
            if segment:
                await segment.put(outcome.reply)
            self._count(outcome.reply)
        return outcome

    def _count(self, reply: Reply) -> None:
        self.counts.update(prompt_tokens=reply.prompt_tokens, tokens=reply.completion_tokens)
        self.usd += cost_usd(reply, self.endpoint.price)

    async def tokenize(self, text: str, segment: Segment) -> list[int]:
        """The token ids of a text without special tokens, by the one way that every front of vLLM passes through.

        Raises EndpointError where the endpoint does not tell token ids.
        """
        tokens = self._tokens.setdefault(segment, {})
        if text not in tokens:  # asked once for each segment, however many want it at the same time
            tokens[text] = asyncio.create_task(self._tokenize(text, segment))
        return await tokens[text]

    async def _tokenize(self, text: str, segment: Segment) -> list[int]:
        request = completion_request(
            self.endpoint.model, text, 1, temperature=0, return_token_ids=True, add_special_tokens=False
        )
        outcome = await self.buy(request, segment)
        if outcome.reply is None or not outcome.reply.prompt_token_ids:
            why = outcome.error or "no prompt_token_ids in its answer: is it a vLLM server?"
            raise EndpointError(f"{self.endpoint.base_url} does not tell token ids ({why})")
        return outcome.reply.prompt_token_ids

    async def _ask(self, request: Request) -> Outcome:
        failures: Counter[str] = Counter()
        while True:
            self.counts["requests"] += 1
            answer = await self._post(request)
            if isinstance(answer, Reply):
                return Outcome(answer)
            failures[answer.kind] += 1
            self.counts[answer.kind] += 1
            if answer.meaning == "end_of_run":
                raise EndpointError(answer.error)
            if answer.meaning == "row":
                return Outcome(None, answer.error)
            tries = failures.total()
            if tries >= self.endpoint.max_attempts or failures["timeout"] >= TIMEOUT_ATTEMPTS:
                return Outcome(None, f"{answer.error}, {tries} times")
            self.counts["retries"] += 1
            await asyncio.sleep(_pause(tries - 1, answer.retry_after_s))

    async def _post(self, request: Request) -> Reply | Failure:
        url = f"{self.endpoint.base_url.rstrip('/')}/{request.path}"
        started = time.monotonic()
        try:
            async with self._session.post(
                url,
                data=json.dumps(request.body, ensure_ascii=False).encode("utf-8", "replace"),
                headers={"X-Client-Request-Id": request.request_id},
            ) as response:
                self._unreachable_since = None
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            now = time.monotonic()
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since > self.endpoint.unreachable_s:
                raise unreachable(self.endpoint, error) from None
            return Failure("connection", "retry", f"no connection: {error}")
        except TimeoutError:
            return Failure("timeout", "retry", f"no answer within {self.endpoint.timeout_s:g} s")
        except (aiohttp.ClientError, ConnectionError) as error:
            return Failure("connection", "retry", f"connection lost: {type(error).__name__}")
        return self._reader.read(request, response.status, response.headers, body, time.monotonic() - started)


def _pause(attempt: int, retry_after_s: float | None) -> float:
    """Full jitter on a doubling pause, so that clients that failed together do not come back together."""
    ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
    if retry_after_s is None:
        return random.uniform(0, ceiling)
    return min(retry_after_s, LONGEST_RETRY_AFTER_S) + random.uniform(0, FIRST_PAUSE_S)


async def all_of(rows: Iterable[Awaitable[R]]) -> list[R]:
    """What all rows give. Where one ends the run, the others under way are still awaited: they are paid for."""
    results = await asyncio.gather(*rows, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
