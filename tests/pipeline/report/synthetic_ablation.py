"""A made-up evaluation as a cluster's: four models, eight answers to each problem with their votes, benchmarks of the paper.

`python tests/pipeline/report/synthetic_ablation.py FOLDER` writes it with its report, for looking at the page.
"""

import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import synthetic_run as made

from pipeline.config import Config
from pipeline.evaluate.voting import votes
from pipeline.records import Generation, Score, Vote

SAMPLES, BUDGETS = 8, (512, 1024, 2048, 4096)
SKILL = {"base": 0.34, "stage1": 0.5, "stage2_alone": 0.62, "stage2": 0.66}
LENGTH = {"base": 700, "stage1": 900, "stage2_alone": 1900, "stage2": 1700}
SUBJECTS = (
    "Algebra",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
    "Precalculus",
)
SETS = {"math500": (0.0, True), "aime2024": (0.42, False)}
"""How much harder than MATH, and whether levels and subjects are told."""
PROBLEMS = (
    "Let $a$ and $b$ be positive integers with $a + b = {n}$ and $\\gcd(a, b) = 1$. How many ordered pairs $(a, b)$ are there?",
    "What is the remainder when $7^{{{n}}}$ is divided by 13?",
    "A triangle has sides of length ${n}$, ${m}$ and ${m}$. What is the square of its area?",
    "In how many ways can {n} identical balls be put into 4 boxes so that no box is empty?",
    "Let $f(x) = x^2 - {n}x + {m}$. What is the sum of the squares of the roots of $f$?",
)
STEPS = (
    "So we want to see what happens modulo {m}.",
    "Let me write the first few cases down: {n}, {m}, {k}, and look for a pattern.",
    "Wait, that cannot be right: it would make the left side even, and {n} is odd.",
    "Let me check this with small numbers. For 3 it gives {k}, and by hand I count {k} as well. Good.",
    "Alternatively, group the terms in pairs: each pair contributes {m}.",
    "Hmm, I have counted the symmetric case twice, so I need to divide by 2.",
    "Therefore the expression becomes {n} · {m} − {k}.",
)


def config(root: Path, **report: Any) -> Config:
    """Its config."""
    evaluate = {
        "benchmarks": [{"name": name, "path": f"{name}.jsonl"} for name in SETS],
        "models": list(SKILL),
        "budgets": list(BUDGETS),
        "samples": SAMPLES,
        "temperature": 0.7,
    }
    return made.config(root, evaluate, **report)


def write(settings: Config, problems: dict[str, int]) -> None:
    """All stages; so many problems of each benchmark."""
    made.write_stages_before(settings)
    chance = random.Random(7)
    generations: list[Generation] = []
    scores: list[Score] = []
    voted: list[Vote] = []
    for benchmark, number in problems.items():
        hardness, told = SETS[benchmark]
        for n in range(number):
            level = 1 + n * 5 // number
            luck = chance.random() + hardness + 0.09 * (level - 3) * told
            for model in SKILL:
                answers = list(_answers(benchmark, n, level if told else None, model, luck, chance))
                generations += [answer for answer, _ in answers]
                came = ((row, right) for row, right in answers if row.status != "failed")
                found = [score for row, right in came for score in _scores(row, right, chance)]
                scores += found
                voted += votes(found, str.__eq__)
    made.write_evaluation(settings, generations, scores, voted)


def _answers(
    benchmark: str, n: int, level: int | None, model: str, luck: float, chance: random.Random
) -> Iterator[tuple[Generation, bool]]:
    """Eight answers, each with whether it is right; longer ones to harder problems."""
    values = {"n": 12 + n, "m": 7 + n % 9, "k": 3 + n % 5}
    for sample in range(SAMPLES):
        right = luck + chance.gauss(0, 0.15) < SKILL[model]
        length = round(LENGTH[model] * math.exp(chance.gauss(0, 0.4) + 0.7 * (luck - 0.5) + (0 if right else 0.2)))
        value = values["n"] * values["m"] + (0 if right else chance.choice((1, 1, 2, 10)))
        row = made.generation(
            model,
            benchmark,
            n,
            _response(model, value, values, length, chance),
            sample_index=sample,
            problem=PROBLEMS[n % len(PROBLEMS)].format(**values),
            answer=str(values["n"] * values["m"]),
            level=f"Level {level}" if level else None,
            subset=SUBJECTS[n % len(SUBJECTS)] if level else None,
            completion_tokens=min(length, BUDGETS[-1]),
        )
        yield (replace(row, status="failed", response="") if chance.random() < 0.0005 else row), right


def _response(model: str, value: int, values: dict[str, int], length: int, chance: random.Random) -> str:
    thought = "\n\n".join(chance.choice(STEPS).format(**values) for _ in range(max(2, min(length, BUDGETS[-1]) // 22)))
    if length > BUDGETS[-1]:
        return f"<think>\n{thought}"
    final = f"Adding up the cases gives {value}.\n\nThe answer is $\\boxed{{{value}}}$."
    if model in ("base", "stage1"):
        return f"{thought[:900]}\n\n{final}"
    return f"<think>\n{thought}\n</think>\n\n{final}"


def _scores(row: Generation, right: bool, chance: random.Random) -> Iterator[Score]:
    """At every budget, and at the natural length last: by the final answer, then by the last number."""
    unboxed = row.model == "base" and chance.random() < 0.12
    said = re.findall(r"boxed{(\d+)}", row.response)
    for curve, budget in [("budget_forced", budget) for budget in BUDGETS] + [("natural", BUDGETS[-1])]:
        truncated = row.completion_tokens >= budget
        kept = right and (
            not truncated or (curve != "natural" and chance.random() < 0.3 * budget / row.completion_tokens)
        )
        for convention in ("final_answer", "last_number"):
            nothing = convention == "final_answer" and (unboxed or (truncated and curve == "natural"))
            verdict = "unparsable" if nothing else "correct" if kept else "incorrect"
            forced = truncated and curve != "natural"
            tokens = min(row.completion_tokens, budget) + 9 * forced
            rest = {"curve": curve, "convention": convention, "truncated": truncated, "forced": forced}
            extracted = None if nothing else said[-1] if said else "7"
            yield made.score(row, budget, verdict, tokens, extracted=extracted, **rest)


if __name__ == "__main__":
    from ray_jobs import report

    chosen = config(
        Path(sys.argv[1]),
        title="Qwen2.5-Math-7B, two stages",
        notes=["A made-up run: its numbers come from a random generator and show what the page looks like."],
    )
    write(chosen, {"math500": int(sys.argv[2]), "aime2024": 30})
    report.run(chosen)
    report.show(chosen)
