"""What our client costs beside bare aiohttp and the `openai` package, on one replay teacher, in one run.

    python benchmarks/client_throughput.py [--requests 4000] > benchmarks/results/client_throughput.md

The teacher runs in its own process: 100 ms latency, answers of 500 tokens. Each client keeps 256 requests in
flight; ours stores every answer durably. Start-up is left out.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date
from importlib import metadata
from pathlib import Path

import aiohttp
import openai

from pipeline import prompts
from pipeline.chat import ChatClient, chat_request, preflight
from pipeline.config import Endpoint, Sampling
from pipeline.responses import Segment
from pipeline.storage import Place

IN_FLIGHT = 256
PORT = 8977
URL = f"http://127.0.0.1:{PORT}/v1"
PROBLEM = "What is 2 + 3?"
ENDPOINT = Endpoint(
    model="replay", base_url=URL, api_key_env=None, sampling=Sampling(max_tokens=1024), max_in_flight=IN_FLIGHT
)


async def many(requests: int, ask: Callable[[int], Awaitable[object]]) -> float:
    """Requests per second."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(index: int) -> None:
        async with places:
            await ask(index)

    started = time.monotonic()
    await asyncio.gather(*(one(index) for index in range(requests)))
    return requests / (time.monotonic() - started)


async def bare_aiohttp(requests: int) -> float:
    """A POST and a JSON parse, nothing else."""
    body = json.dumps({"model": "replay", "messages": [{"role": "user", "content": PROBLEM}]}).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(_: int) -> None:
            async with session.post(f"{URL}/chat/completions", data=body) as response:
                json.loads(await response.read())

        return await many(requests, ask)


async def openai_package(requests: int, http_client: object = None) -> float:
    """The `openai` package over httpx, or over the transport given."""
    async with openai.AsyncOpenAI(base_url=URL, api_key="none", http_client=http_client) as client:  # type: ignore[arg-type]

        async def ask(_: int) -> None:
            await client.chat.completions.create(model="replay", messages=[{"role": "user", "content": PROBLEM}])

        return await many(requests, ask)


async def openai_aiohttp(requests: int) -> float:
    """The `openai` package over its aiohttp transport."""
    return await openai_package(requests, openai.DefaultAioHttpClient())


async def ours(requests: int) -> float:
    """`ChatClient`, every answer durable before it counts."""
    messages = prompts.teacher(PROBLEM, long_thought=False)
    with tempfile.TemporaryDirectory() as folder:
        async with ChatClient(ENDPOINT) as client, Segment(Place(folder), "0", "f") as segment:
            return await many(requests, lambda index: client.buy(chat_request(ENDPOINT, messages, index), segment))


CLIENTS = {
    "bare aiohttp": bare_aiohttp,
    "ours, durable": ours,
    "openai over aiohttp": openai_aiohttp,
    "openai over httpx": openai_package,
}


def main() -> None:
    """Measure every client twice, in alternation, and print the better figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "traces.jsonl"
        traces.write_text(json.dumps({"problem": PROBLEM, "content": "word " * 400, "completion_tokens": 500}) + "\n")
        command = [sys.executable, "-m", "ray_jobs", "teacher", "--replay", str(traces), "--port", str(PORT)]
        teacher = subprocess.Popen([*command, "--latency", "0.1"], stderr=subprocess.DEVNULL)
        try:
            asyncio.run(preflight(ENDPOINT))
            best: dict[str, float] = {}
            for _ in range(2):
                for name, client in CLIENTS.items():
                    best[name] = max(best.get(name, 0), asyncio.run(client(requests)))
        finally:
            teacher.kill()
            teacher.wait()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("aiohttp", "openai"))
    print(
        f"# Client throughput\n\n{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}."
    )
    print(f"{requests} requests, {IN_FLIGHT} in flight, 100 ms latency; better of two alternating rounds.\n")
    print("| client | requests/s | of bare aiohttp |\n|---|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} | {rate / best['bare aiohttp']:.2f} |")


if __name__ == "__main__":
    main()
