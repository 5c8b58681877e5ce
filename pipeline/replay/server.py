"""The server: answers from the recordings, late, limited or broken as its `Behaviour` says, and counts."""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from aiohttp import web

from pipeline.errors import DataError
from pipeline.prompts import transcript
from pipeline.records import Message
from pipeline.replay.answers import as_fault, completion, limited, stream
from pipeline.replay.batches import BatchDesk
from pipeline.replay.limits import Limiter
from pipeline.replay.recordings import CHARS_PER_TOKEN, Recorded, Recordings

COUNTED = ("limited", "counted_tokens", "prompt_tokens", "completion_tokens")
FAULTS = ("429", "500", "503", "drop", "timeout", "malformed", "empty", "no_choices", "length")


@dataclass
class Behaviour:
    """How the server answers: seconds before an answer, and the share of requests with each fault.

    A batch takes `batch_s`. Of an answer the tokens `allowed` by its request count for `tokens_per_minute`, as at OpenAI, or those it `used`.
    """

    latency_s: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    retry_after_s: float = 1.0
    api_key: str | None = None
    seed: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    counted: Literal["allowed", "used"] = "allowed"
    limits_told: bool = True
    batch_s: float = 1.0


class ReplayTeacher:
    """The server's handlers and counts."""

    def __init__(self, recordings: Recordings, behaviour: Behaviour, log: IO[str] | None = None) -> None:
        self._recordings = recordings
        self._behaviour = behaviour
        self._limiter = Limiter(behaviour.requests_per_minute, behaviour.tokens_per_minute, told=behaviour.limits_told)
        self._random = random.Random(behaviour.seed)
        self._log = log
        self._counts: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._desk = BatchDesk(self.line, self.allows, behaviour.batch_s)
        self._in_flight = self._most_in_flight = 0
        self._first_at = self._last_at = 0.0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.get("/v1/models", self._models),
                web.get("/stats", self._stats),
                web.get("/answered", self._list_answered),
                web.put("/faults", self._set_faults),
                *self._desk.routes(),
            ]
        )
        return app

    async def _models(self, request: web.Request) -> web.Response:
        if not self.allows(request):
            return error(401, "Incorrect API key provided", "invalid_api_key")
        data = [
            {"id": model, "object": "model", "created": 0, "owned_by": "replay"} for model in self._recordings.models
        ]
        return web.json_response({"object": "list", "data": data})

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self._counts["requests"],
                "answers": self._counts["answers"],
                "distinct_answers": len(self._answered),
                "answered_again": self._answered.total() - len(self._answered),
                **{name: self._counts[name] for name in COUNTED},
                "by_fault": {name: self._counts[name] for name in FAULTS if self._counts[name]},
                "batches": self._desk.sizes(),
                "in_flight": self._in_flight,
                "most_in_flight": self._most_in_flight,
                "first_request_at": self._first_at,
                "last_answer_at": self._last_at,
            }
        )

    async def _list_answered(self, _: web.Request) -> web.Response:
        return web.json_response(self._answered)

    async def _set_faults(self, request: web.Request) -> web.Response:
        self._behaviour.faults = check_faults(await request.json())
        return web.json_response(self._behaviour.faults)

    def allows(self, request: web.Request) -> bool:
        """Whether a request has the key, if one is wanted."""
        key = self._behaviour.api_key
        return key is None or request.headers.get("Authorization") == f"Bearer {key}"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._counts["requests"] += 1
        self._first_at = self._first_at or time.time()
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        try:
            return await self._answer(request, await request.json())
        except (ValueError, KeyError, IndexError, TypeError) as wrong:
            return error(400, f"not a chat request: {type(wrong).__name__} {wrong}", "invalid_request_error")
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not self.allows(request):
            return error(401, "Incorrect API key provided", "invalid_api_key")
        try:
            asked = self._understood(body)
        except _RefusedError as refused:
            return error(*refused.args)
        wait_s = self._limiter.admit(asked.counted)
        headers = self._limiter.headers()
        if wait_s:
            self._counts["limited"] += 1
            headers["Retry-After"] = f"{wait_s:.3f}"
            return error(429, "Rate limit reached", "rate_limit_exceeded", headers)
        self._counts["counted_tokens"] += asked.counted
        if self._behaviour.latency_s:
            await asyncio.sleep(self._behaviour.latency_s)
        fault = self._draw_fault()
        if fault in ("429", "500", "503", "drop", "timeout", "malformed", "no_choices"):
            return await self._fail(request, fault)
        found = self._given(asked, fault, request.headers.get("X-Client-Request-Id"))
        if body.get("stream"):
            return await stream(request, found, headers)
        return web.json_response(found, headers=headers)

    def line(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body for a line of a batch."""
        self._counts["requests"] += 1
        try:
            asked = self._understood(body)
        except _RefusedError as refused:
            return refused.args[0], error_body(*refused.args[1:])
        fault = self._draw_fault()
        if fault in ("429", "500", "503"):
            return int(fault), error_body(f"planted fault {fault}", "server_error")
        return 200, self._given(asked, fault, name)

    def _understood(self, body: dict[str, Any]) -> "_Asked":
        if body["model"] not in self._recordings.models:
            raise _RefusedError(404, f"The model `{body['model']}` does not exist", "model_not_found")
        messages = [Message(str(turn["role"]), str(turn["content"])) for turn in body["messages"]]
        message = transcript(messages)
        samples = self._recordings.find(body["model"], messages)
        if not samples:
            raise _RefusedError(400, "no answer is recorded for this problem", "no_recorded_trace")
        recorded = samples[self._sample_index(body, message) % len(samples)]
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        prompt_tokens = sum(len(turn.content) for turn in messages) // CHARS_PER_TOKEN + 1
        counted = limit if limit and self._behaviour.counted == "allowed" else recorded.completion_tokens
        return _Asked(body, message, recorded, limit, prompt_tokens, prompt_tokens + counted)

    def _given(self, asked: "_Asked", fault: str | None, name: str | None) -> dict[str, Any]:
        """The completion, counted."""
        answer = as_fault(limited(asked.recorded, asked.limit), fault)
        self._count(name or f"{asked.body['model']} {asked.body.get('seed')} {asked.message}", asked.body["model"])
        self._counts["completion_tokens"] += answer.completion_tokens
        self._counts["prompt_tokens"] += asked.prompt_tokens
        return completion(asked.body["model"], answer, asked.prompt_tokens)

    def _draw_fault(self) -> str | None:
        draw = self._random.random()
        for name, share in self._behaviour.faults.items():
            if draw < share:
                self._counts[name] += 1
                return name
            draw -= share
        return None

    async def _fail(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault == "timeout":
            await asyncio.sleep(3600)
        if fault == "malformed":
            return web.Response(text='{"choices": [{"message": {"content": "cut sho', content_type="application/json")
        if fault == "no_choices":
            return web.json_response({"id": "replay", "object": "chat.completion", "choices": []})
        response = error(
            int(fault), f"planted fault {fault}", "rate_limit_exceeded" if fault == "429" else "server_error"
        )
        if fault in ("429", "503"):
            response.headers["Retry-After"] = f"{self._behaviour.retry_after_s:g}"
        return response

    def _sample_index(self, body: dict[str, Any], message: str) -> int:
        if body.get("seed") is not None:
            return int(body["seed"])
        key = f"{body['model']} {message}"
        self._asked[key] += 1
        return self._asked[key] - 1

    def _count(self, name: str, model: str) -> None:
        self._answered[name] += 1
        self._last_at = time.time()
        self._counts["answers"] += 1
        if self._log is not None:
            print(json.dumps({"request": name, "model": model, "at": time.time()}), file=self._log, flush=True)


@dataclass(frozen=True)
class _Asked:
    """What a request asks, with its recorded answer. `counted` tokens are held against the limits."""

    body: dict[str, Any]
    message: str
    recorded: Recorded
    limit: int | None
    prompt_tokens: int
    counted: int


class _RefusedError(Exception):
    """Status, message and code of an error."""


def check_faults(faults: dict[str, float]) -> dict[str, float]:
    """The faults, or a DataError for an unknown one or shares above 1."""
    for name in faults:
        if name not in FAULTS:
            raise DataError(f"unknown fault {name!r}: known are {', '.join(FAULTS)}")
    if not 0 <= sum(faults.values()) <= 1:
        raise DataError(f"the faults' shares add up to {sum(faults.values()):g}: at most 1")
    return faults


def error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as providers send it."""
    return web.json_response(error_body(message, code), status=status, headers=headers)


def error_body(message: str, code: str) -> dict[str, Any]:
    """The body of one."""
    return {"error": {"message": message, "type": code, "code": code}}


async def serve(
    recordings: Recordings, behaviour: Behaviour, host: str, port: int, log: str | None, *, until_eof: bool
) -> None:
    """Serve until cancelled, or until standard input closes: a job's teacher ends with the job, however that dies."""
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(log).open("a", encoding="utf-8")) if log else None
        except OSError as error:
            raise DataError(
                f"--log {log!r} cannot be written ({error.strerror}): give a file in an existing folder"
            ) from None
        runner = web.AppRunner(
            ReplayTeacher(recordings, behaviour, stream).app(),
            access_log=None,
            handler_cancellation=True,  # an answer that its asker did not wait for was not given
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=4096).start()
        except OSError as error:
            raise DataError(f"cannot listen on {host}:{port}: {error.strerror}: give another --port") from None
        print(f"replaying {len(recordings)} answers at http://{host}:{port}/v1", file=sys.stderr, flush=True)
        try:
            if until_eof:
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
            else:
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()
