"""Budget-forced answers from one pass, against a generation of its own for every budget: tokens, seconds, and whether they agree.

    python benchmarks/evaluate_budgets.py [--problems FILE.jsonl] [--count 32] [--budgets 64,128,256,512,1024,2048]

SmolLM2-135M in float32, greedy, behind vLLM's own server; every problem is asked at once. The one pass generates at the largest
budget and reads it at each; the other way generates anew for each. Both force an answer by the same rule, of at most 24 tokens. The
prefix cache is emptied before each run. Generated are all tokens that the model made, prefilled those of prompts that were not
in the cache. Recorded in `benchmarks/results/evaluate.md`.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import serving
import training

from pipeline.chat import ChatClient, Outcome
from pipeline.chat.client import all_of
from pipeline.config import Endpoint, Evaluate
from pipeline.evaluate.budgets import Reading, forced
from pipeline.evaluate.generate import Question, generate
from pipeline.records import Problem, problem_id
from pipeline.responses import Segment
from pipeline.storage import Place


class Counting(ChatClient):
    """Counts what the server had to compute."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.made: Counter[str] = Counter()

    async def buy(self, request: Any, segment: Segment | None) -> Outcome:
        outcome = await super().buy(request, segment)
        if outcome.reply is not None:
            reply = outcome.reply
            self.made.update(generated=reply.completion_tokens, prefilled=reply.prompt_tokens - reply.cached_tokens)
        return outcome


@dataclass(frozen=True)
class Run:
    """Tokens and seconds, and the readings of each problem by budget."""

    generated: int
    prefilled: int
    seconds: float
    found: list[dict[int, Reading]]


def measure(url: str, problems: Sequence[Problem], budgets: tuple[int, ...]) -> Run:
    """One pass at the largest of the budgets, read at all."""
    urlopen(Request(url.removesuffix("/v1") + "/reset_prefix_cache", b"", method="POST"), timeout=30).close()
    settings = Evaluate.model_validate({"benchmarks": [{"name": "none", "path": "none.jsonl"}], "budgets": budgets})
    endpoint = Endpoint.model_validate(
        {
            "model": serving.MODEL, "base_url": url, "api_key_env": None, "timeout_s": 3600,
            "sampling": {"temperature": 0, "max_tokens": budgets[-1], "extra": {"return_token_ids": True, "logprobs": True}},
        }
    )  # fmt: skip
    client = Counting(endpoint)

    async def one(problem: Problem, segment: Segment) -> dict[int, Reading]:
        generation = await generate(Question(serving.MODEL, "none", 0, problem), client, segment)
        return {reading.budget: reading for reading in await forced(generation, settings, client, segment)}

    async def every() -> list[dict[int, Reading]]:
        with tempfile.TemporaryDirectory() as folder:
            async with client, Segment(Place(folder), "0", "z") as segment:
                return await all_of(one(problem, segment) for problem in problems)

    started = time.monotonic()
    found = asyncio.run(every())
    return Run(client.made["generated"], client.made["prefilled"], time.monotonic() - started, found)


def problems_of(file: Path | None, count: int) -> list[Problem]:
    """The first problems of a JSONL file, or made-up ones."""
    if file is None:
        rows = [
            {"problem": f"A shop has {17 * n + 5} boxes of {n + 3} pens and sells {7 * n + 2} pens a day. After how many days are fewer "
                        "than ten pens left? Explain each step.", "answer": str(n)}
            for n in range(count)
        ]  # fmt: skip
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()[:count]]
    return [
        Problem(problem_id(row["problem"]), row["problem"], row["answer"], "integer", None, "none", "none", None)
        for row in rows
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--budgets", default="64,128,256,512,1024,2048")
    given = parser.parse_args()
    budgets = tuple(int(budget) for budget in given.budgets.split(","))
    problems = problems_of(given.problems, given.count)
    engine = {"dtype": "float32", "max_model_len": 4096, "kv_cache_memory_bytes": 6 << 30}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving.vllm(training.smollm2(Path(folder)), Path(folder), engine) as url,
    ):
        measure(url, problems[:2], (16,))  # the server's first answers are slow
        pass_of_all = measure(url, problems, budgets)
        each = {budget: measure(url, problems, (budget,)) for budget in budgets}
    largest = each[budgets[-1]]
    print("| way | generated tokens | prefilled tokens | seconds |\n|---|---|---|---|")
    print(f"| one pass, read at {len(budgets)} budgets | {_figures(pass_of_all)} |")
    print(f"| a run for the largest budget alone | {_figures(largest)} |")
    print(f"| ratio | {_ratio(pass_of_all, largest)} |")
    together = Run(
        sum(run.generated for run in each.values()), sum(run.prefilled for run in each.values()),
        sum(run.seconds for run in each.values()), [],
    )  # fmt: skip
    print(f"| a run for each budget | {_figures(together)} |")
    agree: Counter[str] = Counter()
    for budget, run in each.items():
        for one, other in zip(pass_of_all.found, run.found, strict=True):
            kind = "forced" if one[budget].forced or other[budget].forced else "unforced"
            same = one[budget] == other[budget]
            agree.update({kind: 1, f"{kind}, the same": same})
    for kind in ("unforced", "forced"):
        print(f"\n{kind}: {agree[f'{kind}, the same']} of {agree[kind]} answers are the same both ways")
    return 0


def _figures(run: Run) -> str:
    return f"{run.generated:,} | {run.prefilled:,} | {run.seconds:,.1f}"


def _ratio(run: Run, other: Run) -> str:
    return f"{run.generated / other.generated:.2f} | {run.prefilled / other.prefilled:.2f} | {run.seconds / other.seconds:.2f}"


if __name__ == "__main__":
    sys.exit(main())
