"""`longthought plan --probe`: what a run's time depends on, measured on this machine in a minute or two, without Ray.

In: a config, a few of its problems, rows to train on. Out: a `Speed`, and lines that say what was measured, or why it was not: each endpoint's
answers, steps of training by as many workers as the config asks for, and the base model served by vLLM, asked as `evaluate` asks. What needs
GPUs that this machine lacks is left out.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import precision, prompts
from pipeline.chat import ChatClient, RequestError, all_of, chat_request
from pipeline.config import Config, Endpoint, as_yaml
from pipeline.errors import UserError
from pipeline.evaluate.budgets import forced
from pipeline.evaluate.generate import Question, endpoint_of, generate
from pipeline.plan import assumptions as assumed
from pipeline.plan.counts import Answers
from pipeline.plan.estimate import Estimate
from pipeline.plan.run import Speed
from pipeline.records import Generation, PackedRow, Problem, Step
from pipeline.responses import Segment
from pipeline.storage import Place, write_rows
from pipeline.train import marker
from ray_jobs.teacher import DIRECTLY, replayed

REQUESTS, MOST_TOKENS = 4, 256
"""Of each endpoint so many answers, none longer: they are paid for."""
STEPS, WARM = 5, 2
"""Of training; the first ones are slower, and do not count."""
QUESTIONS = 64
"""To the served model, all at once where `evaluate.max_in_flight` allows it."""
BUSY = 0.25
"""Of this machine's CPUs: with more at work for others, what is measured is slow."""
LONGEST_S = 600
"""No part may take longer."""


class _NotMeasuredError(Exception):
    """Why something was not measured."""


def probe(
    config: Config,
    problems: Sequence[Problem],
    heldout: Sequence[Problem],
    rows: Sequence[PackedRow],
    asked: Mapping[str, Endpoint],
) -> tuple[Speed, list[str]]:
    """Measure. `heldout` are problems of the benchmarks, `asked` the endpoints that the run will ask, by their names in the config."""
    busy = os.getloadavg()[0]
    token_s, said = _answers(config, problems, asked)
    if busy > BUSY * (os.cpu_count() or 1):
        said.insert(0, f"this machine is busy (a load of {busy:.1f}): what follows is measured on what is left of it")
    speed = Speed(token_s)
    with TemporaryDirectory(prefix="longthought-probe-") as folder:
        model = Path(folder) / "model"
        try:
            trained_s, start_s = _training(config, rows, Path(folder), model)
            speed = Speed(token_s, trained_s, start_s)
            said.append(f"training: {1 / trained_s:,.0f} tokens a second, {start_s:,.0f} s beside them: measured")
            served_s, ready_s, lengths = asyncio.run(_serving(config, heldout, Path(folder), model))
            speed = Speed(token_s, trained_s, start_s, served_s, ready_s, Answers(lengths))
            mean = sum(lengths) / len(lengths)
            said.append(
                f"vLLM: {1 / served_s:,.0f} tokens a second, {ready_s:,.0f} s to start, answers of {mean:,.0f} tokens by the base model: "
                f"measured; with Ray Serve {assumed.SERVE_SHARE:.0%} of it, and {assumed.SERVE_STARTS:g} times the start"
            )
        except (_NotMeasuredError, UserError, RequestError) as error:
            said.append(f"not measured: {error}")
    return speed, said


def _answers(
    config: Config, problems: Sequence[Problem], asked: Mapping[str, Endpoint]
) -> tuple[dict[str, Estimate], list[str]]:
    """Seconds for a token of one answer, of each endpoint."""
    found: dict[str, Estimate] = {}
    said = []
    for name, endpoint in asked.items():
        try:
            if not problems:
                raise _NotMeasuredError("no problem can be read to ask it")
            with replayed(config):
                found[name] = asyncio.run(_asked(endpoint, problems[:REQUESTS]))
            said.append(f"{name}: an answer comes at {1 / found[name].likely:,.0f} tokens a second: measured")
        except (UserError, _NotMeasuredError) as error:
            said.append(f"{name}: not measured: {error}")
    return found, said


async def _asked(endpoint: Endpoint, problems: Sequence[Problem]) -> Estimate:
    sampling = endpoint.sampling.model_copy(update={"max_tokens": min(MOST_TOKENS, endpoint.sampling.max_tokens)})
    short = endpoint.model_copy(update={"sampling": sampling, "batch": None, "max_attempts": 2})
    async with ChatClient(short) as client:
        outcomes = await all_of(
            client.buy(chat_request(short, prompts.teacher(each.problem, long_thought=False), 0), None)
            for each in problems
        )
    each = [
        outcome.reply.latency_s / outcome.reply.completion_tokens
        for outcome in outcomes
        if outcome.reply and outcome.reply.completion_tokens
    ]
    if not each:
        raise _NotMeasuredError(next((outcome.error for outcome in outcomes if outcome.error), "it tells no tokens"))
    return Estimate(min(each), sum(each) / len(each), max(each))


# --- training ---------------------------------------------------------------------------------------


def _training(config: Config, rows: Sequence[PackedRow], folder: Path, target: Path) -> tuple[float, float]:
    """Seconds for a token, and seconds beside the steps. Leaves the model, as good as untrained, in `target`."""
    from ray_jobs.train import allocator

    settings = config.train
    _require_gpus("train", settings.workers * settings.worker_gpus)
    least = settings.workers // settings.sequence_parallel * settings.micro_rows
    stage = settings.stage1.model_copy(
        update={"epochs": 1, "learning_rate": 1e-12, "rows_per_step": least, "max_examples": None}
    )
    short = settings.model_copy(update={"stage1": stage, "checkpoint_every": STEPS + 1, "trackers": ()})
    (folder / "config.yaml").write_text(as_yaml(config.model_copy(update={"train": short})))
    known = [row for row in rows if sum(row.lengths) <= stage.max_length] or [_row(stage.max_length)]
    count = STEPS * least
    write_rows(Place(str(folder / "rows")), PackedRow, [known[index % len(known)] for index in range(count)])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(settings.workers)]
    command += ["-m", "pipeline.train", "--config", str(folder / "config.yaml"), "--stage", "stage1"]
    command += ["--rows", str(folder / "rows"), "--out", str(target)]
    environment = {"OMP_NUM_THREADS": str(max(1, int(settings.worker_cpus)))}
    if not settings.worker_gpus:
        environment |= {"DS_ACCELERATOR": "cpu", **allocator()}
    started = time.monotonic()
    with _started(command, environment, folder / "train.log") as process:
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            raise _NotMeasuredError(f"{STEPS} steps of training take more than {LONGEST_S} s") from None
    seconds = time.monotonic() - started
    made = marker.read(Place(str(target)))
    if made is None:
        raise _NotMeasuredError(f"training: {_last_line(folder / 'train.log')}")
    steps: list[Step] = made.steps
    token_s = sum(step.seconds for step in steps[WARM:]) / sum(step.tokens for step in steps[WARM:])
    return token_s, max(0.0, seconds - token_s * sum(step.tokens for step in steps))


def _row(tokens: int) -> PackedRow:
    """A sequence of one example, for want of real ones."""
    ids = [index % 1000 for index in range(tokens)]
    return PackedRow(["probe"], [tokens], ids, [*ids[1:], -100], tokens - 1)


# --- serving ----------------------------------------------------------------------------------------


async def _serving(
    config: Config, heldout: Sequence[Problem], folder: Path, model: Path
) -> tuple[float, float, list[int]]:
    """Seconds for a token at the concurrency of `evaluate`, seconds until vLLM answers, and the lengths of the answers."""
    if config.evaluate.endpoint is not None:
        raise _NotMeasuredError("serving: evaluate.endpoint asks a model that is none of the run's own")
    if not heldout:
        raise _NotMeasuredError("serving: no benchmark can be read to ask the model")
    _require_gpus("serve", config.serve.replica_gpus)
    started = time.monotonic()
    with _vllm(config, folder, model) as url:
        ready_s = time.monotonic() - started
        endpoint = endpoint_of(config, "base", url).model_copy(update={"api_key_env": None, "max_attempts": 1})
        many = min(QUESTIONS, len(heldout))
        asked = [heldout[index * len(heldout) // many] for index in range(many)]
        async with ChatClient(endpoint) as client, Segment(Place(str(folder / "responses")), "0", "z") as segment:

            async def ask(problem: Problem) -> Generation:
                generation = await generate(Question("base", "probe", 0, problem), client, segment)
                await forced(generation, config.evaluate, client, segment)
                return generation

            started = time.monotonic()
            try:
                async with asyncio.timeout(LONGEST_S):
                    generations = await all_of(map(ask, asked))
            except TimeoutError:
                raise _NotMeasuredError(f"serving: {many} answers take more than {LONGEST_S} s") from None
            seconds = time.monotonic() - started
            lengths = [each.completion_tokens for each in generations if each.status != "failed"]
            if not lengths:
                raise _NotMeasuredError(f"serving: {generations[0].error}")
            return seconds / client.counts["tokens"], ready_s, lengths


@contextmanager
def _vllm(config: Config, folder: Path, model: Path) -> Iterator[str]:
    """vLLM's own server with a model, from its first answer on: its URL."""
    settings = config.serve
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    engine = {
        "dtype": precision.computed(settings.dtype, settings.replica_gpus),
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": max(1, settings.replica_gpus),
        **settings.engine,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)]
    for name, value in engine.items():
        flag = f"--{name.replace('_', '-')}"
        command += [flag] if value is True else [flag, value if isinstance(value, str) else json.dumps(value)]
    with _started(command, settings.env, folder / "vllm.log") as process:
        deadline = time.monotonic() + LONGEST_S
        while not _answers_at(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise _NotMeasuredError(f"serving: {_last_line(folder / 'vllm.log')}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"


def _answers_at(url: str) -> bool:
    try:
        with DIRECTLY.open(urllib.request.Request(url), timeout=5):
            return True
    except OSError:
        return False


# --- processes --------------------------------------------------------------------------------------


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process, which ends with the block."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=stream, stderr=stream)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _require_gpus(section: str, wanted: float) -> None:
    if wanted:
        import torch

        if wanted > (there := torch.cuda.device_count()):
            raise _NotMeasuredError(f"{section} asks for {wanted:g} GPUs, and this machine has {there}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no word"
