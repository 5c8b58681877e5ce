"""Tokens that adaptive rejection sampling saves: beside a fixed k, and beside stopping when enough is right.

    python benchmarks/adaptive_sampling.py ../shared/data/traces

First, on recorded answers of a real model (100 problems of MATH, 8 answers each by Qwen2.5-Math), through the real
engine: a replay teacher over HTTP, the client, the grader. Then simulated problems with pass rates of Beta(0.5, 0.5)
and lengths as six reasoning models have them on AIME 2025: the logarithm of an answer's length falls with the pass
rate; the coefficients are fitted to the traces given. Both rules of the simulation decide by `distill.stopping` and may ask
again only when what they asked for is there, so that what is under way when a problem ends is paid for and counted.
Recorded in `benchmarks/results/teacher.md`.
"""

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from pipeline.chat import ChatClient, all_of
from pipeline.config import Distill, Endpoint, Sampling
from pipeline.distill.sampling import sample
from pipeline.distill.stopping import Tried, wanted
from pipeline.grading import Grader
from pipeline.records import Problem, Trace, problem_id
from pipeline.replay import Behaviour, Recordings, ReplayTeacher
from pipeline.responses import Segment
from pipeline.storage import Place

K, PROBLEMS, SEEDS = 8, 1_000, 10


def recorded(folder: Path) -> list[dict[str, object]]:
    """The rows of 100 problems with 8 answers each."""
    (file,) = folder.glob("qwen_rm_maj_100x8/*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


async def distilled(rows: list[dict[str, object]], config: Distill) -> dict[str, list[Trace]]:
    """The traces of each problem, by the engine."""
    recordings = Recordings()
    for row in rows:
        for output in row["outputs"]:  # type: ignore[attr-defined]
            recordings.add({"model": "m", "problem": row["problem"], "content": output})
    runner = web.AppRunner(ReplayTeacher(recordings, Behaviour()).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    endpoint = Endpoint(model="m", base_url=url, api_key_env=None, sampling=Sampling(max_tokens=100_000))
    problems = [
        Problem(problem_id(str(row["problem"])), str(row["problem"]), str(row["answer"]), "text", None, "s", "l", None)
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder, Grader() as grader:
        async with ChatClient(endpoint) as client, Segment(Place(folder), "0", "f") as segment:
            found = await all_of(sample(problem, config, client, segment, grader) for problem in problems)
            verdicts = {
                trace.trace_id: (await grader.agrade(problem.answer, trace.response)).verdict == "correct"
                for problem, traces in zip(problems, found, strict=True)
                for trace in traces
            }
    await runner.cleanup()
    covered = sum(any(verdicts[trace.trace_id] for trace in traces) for traces in found)
    tokens = sum(trace.prompt_tokens + trace.completion_tokens for traces in found for trace in traces)
    samples = sum(map(len, found))
    print(
        f"keep {config.keep}, max_samples {config.max_samples}: {samples} answers, {tokens:,} tokens, {covered} of {len(rows)} "
        f"problems with a verified trace, {tokens / covered:,.0f} tokens for each"
    )
    return {problem.problem_id: traces for problem, traces in zip(problems, found, strict=True)}


def length_model(folder: Path) -> tuple[float, float, float]:
    """How the logarithm of a length depends on the pass rate, and its spread among problems and among their answers."""
    (file,) = folder.glob("longcot_aime25/*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    mean = {
        model: statistics.mean(len(row["completion"]) for row in rows if row["model"] == model)
        for model in {row["model"] for row in rows}
    }
    problems = defaultdict(list)
    for row in rows:
        problems[row["problem"]].append(
            (math.log(len(row["completion"]) / mean[row["model"]]), row["is_correct"] is True)
        )
    rates = [statistics.mean(right for _, right in answers) for answers in problems.values()]
    lengths = [statistics.mean(length for length, _ in answers) for answers in problems.values()]
    slope, start = statistics.linear_regression(rates, lengths)
    among = statistics.pstdev(length - start - slope * rate for rate, length in zip(rates, lengths, strict=True))
    inside = statistics.pstdev(
        length - mean_length
        for answers, mean_length in zip(problems.values(), lengths, strict=True)
        for length, _ in answers
    )
    return slope, among, inside


MEASURES = ("with all wanted traces", "with a trace", "traces of those wanted")


def simulated(config: Distill, model: tuple[float, float, float], seed: int) -> tuple[float, ...]:
    """Tokens, the shares of the problems with `keep` right answers and with one, the share of the wanted ones got."""
    slope, among, inside = model
    tokens = complete = covered = right = 0
    for index in range(PROBLEMS):
        rng = random.Random(seed * PROBLEMS + index)  # the same problems and answers for every rule
        rate = rng.betavariate(0.5, 0.5)
        length = 3_000 * math.exp(slope * rate + rng.gauss(0, among))
        tried = Tried()
        while count := wanted(tried, config):
            for _ in range(count):
                tried.add(right=rng.random() < rate, tokens=int(length * math.exp(rng.gauss(0, inside))) + 1)
        tokens += tried.tokens
        complete += tried.right >= config.keep
        covered += tried.right > 0
        right += tried.right
    return tokens, complete / PROBLEMS, covered / PROBLEMS, right / PROBLEMS / config.keep


def mean_of(config: Distill, model: tuple[float, float, float]) -> list[float]:
    """The means of `simulated` over all seeds."""
    runs = [simulated(config, model, seed) for seed in range(SEEDS)]
    return [statistics.mean(values) for values in zip(*runs, strict=True)]


def equal(keep: int, model: tuple[float, float, float], measure: int, target: float) -> tuple[int, list[float]]:
    """The least `give_up_tokens` that reaches the target, and what it gives."""
    low, high = 500, 5_000_000
    while high / low > 1.01:
        middle = int(math.sqrt(low * high))
        reached = mean_of(Distill(keep=keep, max_samples=1_000, give_up_tokens=middle), model)[measure] >= target
        low, high = (low, middle) if reached else (middle, high)
    return high, mean_of(Distill(keep=keep, max_samples=1_000, give_up_tokens=high), model)


def shown(figures: Sequence[float]) -> str:
    """Tokens and shares."""
    shares = (f"{share:.3f} {name}" for share, name in zip(figures[1:], MEASURES, strict=True))
    return f"{figures[0]:,.0f} tokens, {', '.join(shares)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    rows = recorded(folder)
    asyncio.run(distilled(rows, Distill(keep=K, max_samples=K)))
    asyncio.run(distilled(rows, Distill(keep=1, max_samples=K)))
    model = length_model(folder)
    print("log length = {:.2f} x pass rate, spread {:.2f} among problems, {:.2f} among answers".format(*model))
    for keep, most in ((1, 8), (1, 16), (4, 8), (4, 16)):
        plain = mean_of(Distill(keep=keep, max_samples=most), model)
        print(f"stop when {keep} are right, {most} at most: {shown(plain)}")
        for measure, name in enumerate(MEASURES, 1):
            limit, found = equal(keep, model, measure, plain[measure])
            print(f"  as many {name}, give_up_tokens {limit:,}: {1 - found[0] / plain[0]:.1%} fewer; {shown(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
