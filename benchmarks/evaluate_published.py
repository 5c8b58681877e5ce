"""Saved answers of published models graded under every convention, beside the accuracy that was published for them.

    python benchmarks/evaluate_published.py FOLDER [--reasons benchmarks/evaluate_published.jsonl] [--differences FILE]

Below FOLDER are, as far as they are there: `grading/zeroeval_math_l5/math_l5_MODEL.jsonl` (ZeroEval's result files, a
reply in `output`), `traces/qwen_rm_maj_100x8` (`outputs` and their `scores`), `traces/longcot_aime25` (`completion`,
`is_correct`, `model`) and `grading/math500_29models.jsonl` (`response`, `label`). Answers that ours calls right and the
publisher wrong, or the other way round, are listed with the reasons that were found by reading them. Recorded in
`benchmarks/results/evaluate.md`.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.evaluate.conventions import grading
from pipeline.grading import Grade, Grader, final_answer
from pipeline.records import CONVENTIONS, Convention

PUBLISHED = {"o1-mini-2024-09-12": 89.32, "Qwen2.5-72B-Instruct": 60.19, "gemma-2-2b-it": 4.3}
"""Accuracies in percent that ZeroEval reports for MATH level 5 (result_dirs/math-l5.summary.md)."""


@dataclass(frozen=True)
class Answer:
    """One answer of a model. `right` is the verdict of those who published it."""

    id: str
    gold: str
    response: str
    right: bool


@dataclass(frozen=True)
class Published:
    """The answers of one model, and the accuracy that was published, in percent, where one was."""

    name: str
    answers: list[Answer]
    accuracy: float | None = None
    explained: bool = True
    """Whether the verdicts that differ are listed here."""

    @property
    def by_verdicts(self) -> float:
        return 100 * sum(answer.right for answer in self.answers) / len(self.answers)


# --- what was published -----------------------------------------------------------------------------


def rows_of(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """The rows of the JSONL files that match."""
    for file in sorted(folder.glob(pattern)):
        yield from map(json.loads, file.read_text("utf-8").splitlines())


def zeroeval(folder: Path, *, whole: bool) -> list[Published]:
    """Replies in JSON: the answer field alone, in a box, or the `whole` reply."""
    answers = defaultdict(list)
    for row in rows_of(folder, "grading/zeroeval_math_l5/math_l5_*.jsonl"):
        reply = row["output"]
        response = reply if whole else f"\\boxed{{{answer_field(reply)}}}"
        answers[row["model"]].append(Answer(row["id"], row["answer"], response, zeroeval_verdict(row["answer"], reply)))
    what = "the whole reply" if whole else "the answer field"
    return [
        Published(f"{model}, {what}", answers[model], figure, explained=not whole)
        for model, figure in PUBLISHED.items()
        if answers[model]
    ]


_FIELD = re.compile(r'"answer"\s*:\s*("(?:[^"\\]|\\.)*"|[^,\s}]+)')


def answer_field(reply: str) -> str:
    """The last answer field of a reply; many are no valid JSON, for LaTeX stands in them unescaped."""
    fields = _FIELD.findall(reply)
    value = fields[-1] if fields else ""
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value.strip('"')


_FIRST_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def zeroeval_verdict(gold: str, reply: str) -> bool:
    """ZeroEval's rule (src/evaluation/math_eval.py): the first number of the first answer field is that of the gold one."""
    field = next(filter(None, (found.search(reply) for found in _ZEROEVAL_FIELDS)), None)
    if field is None:
        return False
    given, wanted = (_FIRST_NUMBER.search(_without_signs(text)) for text in (field[1], gold))
    return given is not None and wanted is not None and float(given[0]) == float(wanted[0])


_ZEROEVAL_FIELDS = [
    re.compile(r'"answer"\s*:\s*"([^"]*)"'),
    re.compile(r'"answer"\s*:\s*([^,\s]*)'),
    re.compile(r"answer\s*:\s*([^,\s]*)"),
]


def _without_signs(text: str) -> str:
    """A field without $ and commas; a fraction of numbers as a decimal."""
    bare = text.replace("$", "").strip().replace(",", "")
    try:
        return str(float(Fraction(bare))) if "/" in bare else bare
    except (ValueError, ZeroDivisionError):
        return bare


def qwen_samples(folder: Path) -> list[Published]:
    """Qwen2.5-Math's own samples, 8 to a problem, with the verdicts of its evaluation."""
    answers = [
        Answer(f"{row['id']}/{number}", row["answer"], output, right)
        for row in rows_of(folder, "traces/qwen_rm_maj_100x8/*.jsonl")
        for number, (output, right) in enumerate(zip(row["outputs"], row["scores"], strict=True))
    ]
    return [Published("Qwen2.5-Math, 100 problems x 8", answers)] if answers else []


def long_thoughts(folder: Path) -> list[Published]:
    """Six reasoning models on AIME 2025, whole thoughts, with the authors' verdicts."""
    answers = defaultdict(list)
    for row in rows_of(folder, "traces/longcot_aime25/*.jsonl"):
        answers[row["model"]].append(
            Answer(f"{row['id']}/{row['model']}", row["answer"], row["completion"], row["is_correct"])
        )
    return [Published(f"{model}, AIME 2025", found) for model, found in answers.items()]


def labelled(folder: Path, *, boxed: bool) -> list[Published]:
    """29 models on 200 problems of MATH-500, as they stand or with what ours reads in them in a box.

    Where ours differs from the labels is explained in `grading_disputed.jsonl`.
    """
    answers = [
        Answer(row["id"], row["gold"], f"\\boxed{{{final_answer(text) or ''}}}" if boxed else text, row["label"])
        for row in rows_of(folder, "grading/math500_29models.jsonl")
        for text in [row["response"]]
    ]
    what = "the answer in a box" if boxed else "the whole response"
    return [Published(f"29 models on MATH-500, {what}", answers, explained=False)] if answers else []


# --- graded -----------------------------------------------------------------------------------------


def graded(answers: list[Answer], workers: int) -> dict[Convention, list[Grade]]:
    """The grades of every answer under every convention."""
    with Grader(workers) as grader, ThreadPoolExecutor(workers) as pool:
        return {
            convention: list(
                pool.map(grading(convention, grader), (a.gold for a in answers), (a.response for a in answers))
            )
            for convention in CONVENTIONS
        }


def differences(published: Published, grades: list[Grade]) -> Iterator[dict[str, Any]]:
    """The answers whose verdict differs from the publisher's."""
    for answer, grade in zip(published.answers, grades, strict=True):
        if (grade.verdict == "correct") != answer.right:
            yield {"set": published.name, "id": answer.id, "published": answer.right, "ours": grade.verdict, "gold": answer.gold, "extracted": grade.extracted, "matched_by": grade.matched_by, "end": answer.response[-400:]}  # fmt: skip


def explained(found: list[dict[str, Any]], reasons: dict[tuple[str, str], str]) -> str:
    """The differences of a set by reason, with the ids of the answers."""
    groups: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for each in found:
        groups[reasons.get((each["set"], each["id"]), "not read yet"), each["published"]].append(each["id"])
    lines = []
    for (reason, right), ids in sorted(groups.items(), key=lambda group: -len(group[1])):
        verdict = "published right, ours wrong" if right else "published wrong, ours right"
        lines.append(f"- {len(ids)} {verdict}: {reason} ({', '.join(ids)})")
    return "\n".join(lines)


def main() -> int:
    """Grade and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reasons", type=Path, help="JSONL of {set, id, reason}: why a verdict differs")
    parser.add_argument("--differences", type=Path, help="write the answers whose verdict differs here")
    given = parser.parse_args()
    lines = given.reasons.read_text("utf-8").splitlines() if given.reasons else []
    reasons = {(row["set"], row["id"]): row["reason"] for row in map(json.loads, lines)}
    sets = [
        *zeroeval(given.folder, whole=False),
        *qwen_samples(given.folder),
        *long_thoughts(given.folder),
        *zeroeval(given.folder, whole=True),
        *labelled(given.folder, boxed=True),
        *labelled(given.folder, boxed=False),
    ]
    print(f"| model | answers | published | its verdicts | {' | '.join(CONVENTIONS)} |")
    print("|---" * (4 + len(CONVENTIONS)) + "|")
    differing, timeouts = [], Counter[str]()
    for published in sets:
        grades = graded(published.answers, given.workers)
        rates = (sum(g.verdict == "correct" for g in found) / len(found) for found in grades.values())
        figures = " | ".join(f"{100 * rate:.2f}" for rate in rates)
        figure = f"{published.accuracy:.2f}" if published.accuracy is not None else "-"
        print(
            f"| {published.name} | {len(published.answers)} | {figure} | {published.by_verdicts:.2f} | {figures} |",
            flush=True,
        )
        timeouts.update(name for name, found in grades.items() for grade in found if grade.verdict == "timeout")
        if published.explained:
            differing.append(list(differences(published, grades["final_answer"])))
    print(f"\ntime-outs: {dict(timeouts) or 'none'}")
    for found in filter(None, differing):
        print(f"\n{found[0]['set']}: {len(found)} verdicts differ\n{explained(found, reasons)}")
    if given.differences:
        rows = [json.dumps(row, ensure_ascii=False) for found in differing for row in found]
        given.differences.write_text("".join(f"{row}\n" for row in rows), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
