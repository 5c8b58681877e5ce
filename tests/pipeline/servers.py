"""Real servers on loopback: an aiohttp application in this process, or a program as a child."""

import asyncio
import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline import chat, prompts
from pipeline.config import Endpoint, Sampling
from pipeline.replay import Behaviour, Recordings, ReplayTeacher
from pipeline.responses import Segment

REPO = Path(__file__).parents[2]
START_S = 60

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[str]:
    """Serve an application; gives its base URL, without `/v1`."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def teacher(rows: Sequence[dict[str, Any]], **behaviour: Any) -> AsyncIterator[str]:
    """The replay teacher with these recordings."""
    recordings = Recordings()
    for row in rows:
        recordings.add(row)
    async with running(ReplayTeacher(recordings, Behaviour(**behaviour)).app()) as url:
        yield url


@asynccontextmanager
async def scripted(*answers: Handler) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A chat endpoint that gives these answers in turn, the last one for ever; and the requests it saw."""
    seen: list[dict[str, Any]] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        seen.append({"body": await request.json(), "headers": dict(request.headers), "at": time.monotonic()})
        return await answers[min(len(seen), len(answers)) - 1](request)

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat)])
    async with running(app) as url:
        yield url, seen


def says(status: int = 200, headers: Mapping[str, str] | None = None, **body: Any) -> Handler:
    """A handler that answers with a JSON body."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return handler


def answers(content: str | None = "\\boxed{4}", *, finish: str = "stop", **message: Any) -> Handler:
    """A handler that answers as a model does."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 40}}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return says(id="1", object="chat.completion", created=0, model="teacher", choices=[choice], usage=usage)


def endpoint(url: str, *, max_tokens: int = 1000, **settings: Any) -> Endpoint:
    """An endpoint at a URL of `running`, patient for seconds only."""
    sampling = Sampling(max_tokens=max_tokens)
    patience = {"timeout_s": 20, "max_attempts": 4, "unreachable_s": 5}
    values = {"model": "teacher", "api_key_env": None, "sampling": sampling, **patience, **settings}
    return Endpoint(base_url=f"{url}/v1", **values)


async def ask(settings: Endpoint, sample_index: int = 0, segment: Segment | None = None) -> chat.Outcome:
    """Ask what 2 + 2 is."""
    async with chat.ChatClient(settings) as client:
        return await client.buy(chat.chat_request(settings, prompts.student("2 + 2?"), sample_index), segment)


async def bought(settings: Endpoint, dispatcher: chat.Dispatcher, numbers: range) -> list[Any]:
    """The outcomes of as many questions at once, or what they raise."""
    async with chat.ChatClient(settings, dispatcher) as client:
        asked = (client.buy(chat.chat_request(settings, prompts.student(f"{n}?"), 0), None) for n in numbers)
        return await asyncio.gather(*asked, return_exceptions=True)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def child_server(command: Sequence[str], url: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that serves, from its first answer at `url` to the end of the block."""
    process = subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        deadline = time.monotonic() + START_S
        while not responds(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def responds(url: str) -> bool:
    """Whether an HTTP server answers, be it with an error."""
    try:
        with contextlib.closing(urllib.request.urlopen(url, timeout=5)):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
