"""Requests per second of our client beside others, on one replay teacher, in one run.

    python benchmarks/teacher_throughput.py [--requests 16000] [--rounds 2] [--curator PYTHON]

The teacher runs in its own process: 100 ms latency, answers of 500 tokens; 256 requests in flight. Rates are by the
teacher's clock, from the first request it gets to the last answer it gives; the start before that is reported apart. Ours
stores every answer durably before it counts: as a client alone, and as `longthought distill` with two actors (one answer
for each problem, so none is graded). Curator wants another environment: `--curator` is its Python. `ray.data.llm` asks one
request at a time in each batch, so it gets as many workers as two cores bear, and fewer requests. Recorded in
`benchmarks/results/teacher.md`.
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
from importlib import metadata
from pathlib import Path

import aiohttp
import openai
from distilling import URL, distill, prepared, question, record, stats, teacher

from pipeline import prompts
from pipeline.chat import ChatClient, all_of, chat_request
from pipeline.config import Endpoint, Sampling
from pipeline.responses import Segment
from pipeline.storage import Place

IN_FLIGHT = 256
BODY = {"model": "replay", "messages": [{"role": "user", "content": question(0)}], "max_tokens": 1000}
ENDPOINT = Endpoint(
    model="replay", base_url=URL, api_key_env=None, sampling=Sampling(max_tokens=1000), max_in_flight=IN_FLIGHT
)
CURATOR = """
import sys
from bespokelabs import curator
url, count = sys.argv[1], int(sys.argv[2])
llm = curator.LLM(model_name="openai/replay", backend="litellm", backend_params={
    "base_url": url, "api_key": "none", "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10,
    "max_concurrent_requests": 256, "require_all_responses": False}, generation_params={"max_tokens": 1000})
llm([f"What is {n} + 0?" for n in range(count)])
"""


async def many(requests: int, ask: Callable[[int], Awaitable[object]]) -> None:
    """All requests, so many in flight."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(index: int) -> None:
        async with places:
            await ask(index)

    await asyncio.gather(*(one(index) for index in range(requests)))


async def bare_aiohttp(requests: int) -> None:
    """A POST and a JSON parse, nothing else."""
    body = json.dumps(BODY).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(_: int) -> None:
            async with session.post(f"{URL}/chat/completions", data=body) as response:
                json.loads(await response.read())

        await many(requests, ask)


async def openai_package(requests: int, http_client: object = None) -> None:
    """The `openai` package over httpx, or over the transport given."""
    async with openai.AsyncOpenAI(base_url=URL, api_key="none", http_client=http_client) as client:  # type: ignore[arg-type]

        async def ask(_: int) -> None:
            await client.chat.completions.create(**BODY)  # type: ignore[call-overload]

        await many(requests, ask)


async def openai_aiohttp(requests: int) -> None:
    """The `openai` package over its aiohttp transport."""
    await openai_package(requests, openai.DefaultAioHttpClient())


async def ours(requests: int) -> None:
    """`ChatClient`, every answer durable before it counts."""
    messages = prompts.teacher(question(0), long_thought=False)
    with tempfile.TemporaryDirectory() as folder:
        async with ChatClient(ENDPOINT) as client, Segment(Place(folder), "0", "f") as segment:
            # The client itself keeps 256 in flight; what waits to become durable is no more under way.
            await all_of(client.buy(chat_request(ENDPOINT, messages, index), segment) for index in range(requests))


def our_job(requests: int) -> None:
    """`longthought distill` with two actors: Ray Data, the dispatcher, the store."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"actors": 2, "actor_cpus": 0.5, "max_samples": 1}
        job = distill(prepared(Path(folder), requests, {"max_in_flight": IN_FLIGHT // 2}, settings))
        _, said = job.communicate()
        if job.returncode:
            raise RuntimeError(said)


def ray_data_llm(requests: int) -> None:
    """Ray Data's own HTTP processor."""
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    ray.init(num_cpus=8, logging_level="ERROR", log_to_driver=False)
    config = HttpRequestProcessorConfig(url=f"{URL}/chat/completions", concurrency=4, batch_size=64)
    processor = build_processor(config, preprocess=lambda _: {"payload": BODY}, postprocess=lambda _: {"id": 1})
    processor(ray.data.range(requests)).materialize()
    ray.shutdown()


CLIENTS: dict[str, tuple[Callable[[int], Awaitable[None]] | Callable[[int], None], int]] = {
    "bare aiohttp": (bare_aiohttp, 1),
    "ours, durable": (ours, 1),
    "`longthought distill`, two actors": (our_job, 1),
    "openai over aiohttp": (openai_aiohttp, 1),
    "openai over httpx": (openai_package, 4),
    "ray.data.llm": (ray_data_llm, 16),
}
"""Each with how many times fewer requests it is asked for, that it may come to an end."""


def measured(name: str, requests: int, curator: str | None) -> tuple[float, float]:
    """Requests per second, and the seconds until the first one."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "traces.jsonl"
        record(traces, requests)
        with traces.open("a", encoding="utf-8") as stream:  # what Curator asks first
            stream.write(json.dumps({"problem": "hi", "content": "hi", "completion_tokens": 1}) + "\n")
        with teacher(traces, "--latency", "0.1"):
            started = time.time()
            if name == "Curator":
                environment = {
                    **os.environ,
                    "CURATOR_CACHE_DIR": folder,
                    "OPENAI_API_KEY": "none",
                    "TELEMETRY_ENABLED": "0",
                    "CURATOR_VIEWER": "0",
                }
                subprocess.run([str(curator), "-c", CURATOR, URL, str(requests)], check=True, env=environment,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            else:
                coroutine = CLIENTS[name][0](requests)
                if coroutine is not None:
                    asyncio.run(coroutine)  # type: ignore[arg-type]
            counted = stats()
    if counted["answers"] < requests:
        raise RuntimeError(f"{name}: {counted['answers']} answers of {requests}")
    return requests / (counted["last_answer_at"] - counted["first_request_at"]), counted["first_request_at"] - started


def main() -> int:
    """Measure every client in alternation, and print the better figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--curator", metavar="PYTHON")
    parser.add_argument("--only", nargs="+", choices=[*CLIENTS, "Curator"])
    given = parser.parse_args()
    names = given.only or [*CLIENTS, *(["Curator"] if given.curator else [])]
    best: dict[str, tuple[float, float]] = {}
    for _ in range(given.rounds):
        for name in names:
            share = 16 if name == "Curator" else CLIENTS[name][1]
            found = measured(name, given.requests // share, given.curator)
            best[name] = max(best.get(name, (0.0, 0.0)), found)
            print(f"{name}: {found[0]:,.0f} requests/s", file=sys.stderr, flush=True)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("aiohttp", "openai", "ray"))
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}. {given.requests} requests, better of "
    )
    print(
        f"{given.rounds} alternating rounds.\n\n| client | requests/s | of bare aiohttp | start, s |\n|---|---|---|---|"
    )
    for name, (rate, start) in best.items():
        share = rate / best["bare aiohttp"][0] if "bare aiohttp" in best else 0.0
        print(f"| {name} | {rate:,.0f} | {share:.2f} | {start:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
