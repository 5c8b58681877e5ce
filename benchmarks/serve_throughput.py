"""Tokens per second of `longthought serve` beside vLLM's own server, on one machine, in alternating pairs.

    python benchmarks/serve_throughput.py [--pairs 5] [--clients 64] [--tokens 128] [--only plain|streamed]

SmolLM2-135M with the same engine arguments on both; each pair asks one server after the other, by so many clients at once that ask
two questions each, and counts the tokens that come back by the servers' own figures. The other server is up, but idle. The median
of the pairs' ratios counts. Recorded in `benchmarks/results/evaluate.md`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import minimal
import serving
import training

from pipeline.config import load
from pipeline.records import Step
from pipeline.stage import StageRun
from pipeline.storage import write_rows

ENGINE = {"max_model_len": 1024, "dtype": "bfloat16", "kv_cache_memory_bytes": 1 << 30, "block_size": 32}
NOT_RESERVED = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
QUESTIONS = 2


async def load_of(url: str, clients: int, tokens: int, *, stream: bool) -> float:
    """Tokens per second of all clients together."""

    async def client(session: aiohttp.ClientSession, number: int) -> int:
        made = 0
        for question in range(QUESTIONS):
            body: dict[str, Any] = {
                "model": serving.MODEL, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                "messages": [{"role": "user", "content": f"Tell the story of {number} brave ants and {question} foxes."}],
            }  # fmt: skip
            if stream:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            async with session.post(f"{url}/chat/completions", json=body) as answer:
                answer.raise_for_status()
                if stream:
                    async for line in answer.content:
                        if b'"usage":{' in line.replace(b" ", b""):
                            made += json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
                else:
                    made += json.loads(await answer.read())["usage"]["completion_tokens"]
        return made

    started = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        made = sum(await asyncio.gather(*(client(session, number) for number in range(clients))))
    if made != clients * QUESTIONS * tokens:
        raise RuntimeError(f"{url} made {made} tokens, asked for {clients * QUESTIONS * tokens}")
    return made / (time.monotonic() - started)


@contextmanager
def ours(model: Path, folder: Path) -> Iterator[str]:
    """`longthought serve` with the model, from its first answer on."""
    port = serving.free_port()
    engine = {
        name: value for name, value in {**serving.ENGINE, **ENGINE}.items() if name not in ("dtype", "max_model_len")
    }
    stage = {"max_length": 512, "epochs": 1, "learning_rate": 1e-5, "rows_per_step": 1}
    serve = {
        "models": ["base"], "max_model_len": ENGINE["max_model_len"], "dtype": ENGINE["dtype"], "engine": engine, "port": port,
        "env": NOT_RESERVED,
    }  # fmt: skip
    train = {"model": str(model), "stage1": stage, "stage2": stage}
    file = minimal.config(folder / "config.yaml", folder / "run", serve=serve, train=train)
    run = StageRun(load(str(file), []), "train")  # what training leaves where nothing is trained
    run.finish(rows_in=0, rows_out=0, tables={"steps": write_rows(run.folder.table("steps"), Step, [])})
    log = folder / "ours.log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "ray_jobs", "serve", "--config", str(file)]
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, "RAY_ADDRESS": "local"})
        try:
            serving.wait_for(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--only", choices=("plain", "streamed"))
    given = parser.parse_args()
    os.environ.update(NOT_RESERVED)
    with tempfile.TemporaryDirectory() as folder:
        model = training.smollm2(Path(folder))
        with serving.vllm(model, Path(folder), ENGINE) as theirs, ours(model, Path(folder)) as mine:
            for url in (theirs, mine):
                asyncio.run(load_of(url, given.clients, 16, stream=False))  # warm
            for name in ("plain", "streamed") if given.only is None else (given.only,):
                ratios = []
                print(f"\n| {name} | vLLM, tokens/s | ours, tokens/s | ratio |\n|---|---|---|---|", flush=True)
                for pair in range(given.pairs):
                    rates = {
                        url: asyncio.run(load_of(url, given.clients, given.tokens, stream=name == "streamed"))
                        for url in ((theirs, mine) if pair % 2 == 0 else (mine, theirs))
                    }
                    ratios.append(rates[mine] / rates[theirs])
                    print(
                        f"| pair {pair + 1} | {rates[theirs]:,.0f} | {rates[mine]:,.0f} | {ratios[-1]:.3f} |",
                        flush=True,
                    )
                print(f"| median | | | {statistics.median(ratios):.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
