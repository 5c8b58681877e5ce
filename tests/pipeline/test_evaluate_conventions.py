"""One response under every convention: where they differ, and the source of the rule that makes the difference."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.evaluate.conventions import check, grading
from pipeline.evaluate.harnesses import lm_eval, math_verify, qwen_math, string_match
from pipeline.grading import Grader
from pipeline.records import CONVENTIONS, Convention

MINERVA = "Final Answer: The final answer is ${}$. I hope it is correct."

# Of (gold, response): the conventions that call it correct, all others do not.
TABLE: list[tuple[str, str, str, str]] = [
    ("12", r"So \boxed{12}.", "final_answer last_number math_verify string_match qwen_math lm_eval", "all read the box"),
    ("12", r"\boxed{13}", "", "none takes another number"),
    ("50", r"\boxed{0.5}", "qwen_math", "Qwen2.5-Math grader.py, math_equal: include_percentage"),
    ("3.1416", r"\boxed{3.1415}", "qwen_math", "Qwen2.5-Math grader.py, numeric_equal: rel_tol=1e-4"),
    ("3.1416", r"\boxed{3.1400}", "", "a relative 5e-4 is more than that"),
    (r"\frac{1}{2}", r"\boxed{0.5}", "final_answer last_number math_verify qwen_math lm_eval", "MATH math_equivalence.py: 0.5 is \\frac{1}{2}"),
    ("0.25", r"\boxed{\frac14}", "final_answer math_verify qwen_math", "MATH knows of 0.5 only; strings otherwise"),
    (r"\frac{1}{2}", r"\boxed{\frac12}", "final_answer math_verify string_match qwen_math lm_eval", "MATH math_equivalence.py: _fix_fracs; Minerva D"),
    (r"\frac{3}{4}", r"\boxed{3/4}", "final_answer math_verify qwen_math lm_eval", "MATH math_equivalence.py: _fix_a_slash_b"),
    ("10", r"\boxed{10\text{ cm}}", "final_answer last_number math_verify string_match qwen_math lm_eval", "MATH: remove_right_units; Minerva D: removed expressions"),
    ("5", r"\boxed{x=5}", "final_answer last_number math_verify string_match qwen_math lm_eval", "MATH: short left sides go; Minerva D: what follows ="),
    ("5", r"\boxed{\text{length}=5}", "final_answer last_number math_verify string_match", "longer ones stay in MATH"),
    ("x/2", r"\boxed{x / 2}", "final_answer math_verify string_match qwen_math", "lm-eval hendrycks_math: int('x') fails, texts as they are"),
    ("1,2", r"\boxed{2,1}", "final_answer math_verify", "strings and Qwen2.5-Math keep the order"),
    ("1,2", r"\boxed{12}", "qwen_math", "Qwen2.5-Math grader.py, parse_digits: commas go"),
    (r"\sqrt{2},1", r"\boxed{\sqrt{2},5}", "qwen_math", "sympy's parse_latex reads up to the first comma"),
    (r"\sqrt{2},1", MINERVA.format(r"\sqrt{2}"), "qwen_math lm_eval", "so it does in lm-eval minerva_math"),
    ("(1,2)", r"\boxed{[1,2]}", "qwen_math", "Qwen2.5-Math grader.py: brackets of lists are not compared"),
    ("10{,}000", r"\boxed{10000}", "final_answer last_number math_verify string_match", "Minerva D: {,} goes"),
    ("1,000", r"\boxed{1000}", "final_answer last_number math_verify string_match qwen_math", "MATH's spelling keeps the comma"),
    ("B", r"\boxed{(B) 12}", "final_answer qwen_math", "Qwen2.5-Math grader.py: choice_answer_clean"),
    ("12", "I count 5 and then 12 apples in all", "last_number math_verify qwen_math", "Qwen2.5-Math parser.py: the last number"),
    ("12", r"it follows that \boxed{12", "last_number qwen_math", "Qwen2.5-Math parser.py: a box need not close"),
    ("12", "The answer is 12.", "final_answer last_number math_verify string_match qwen_math", "lm-eval hendrycks_math: no box, no $: all of the text"),
    ("5", "First $3$, in the end it is $5$", "final_answer last_number math_verify qwen_math", "lm-eval hendrycks_math: from the first $ to the last"),
    ("5", "It is $5$", "final_answer last_number math_verify qwen_math lm_eval", "lm-eval hendrycks_math: between two $"),
    (r"\frac{1}{2}", MINERVA.format(r"\frac{2}{4}"), "final_answer math_verify qwen_math lm_eval", "lm-eval minerva_math: is_equiv simplifies"),
    (r"\frac{1}{2}", MINERVA.format(r"\frac{1}{2}"), "final_answer math_verify string_match qwen_math lm_eval", "the same text"),
    ("(1,2)", MINERVA.format(r"(1,\frac{4}{2})"), "final_answer math_verify qwen_math", "lm-eval minerva_math: tuples are not parsed"),
    ("4", r"<think>Is it \boxed{3}?</think>It is 4. Final: 4", "final_answer last_number", "the others read a box in the thought"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "response", "correct", "source"), TABLE)
def test_conventions_differ_where_their_sources_say_so(
    grader: Grader, gold: str, response: str, correct: str, source: str
) -> None:
    right = [name for name in CONVENTIONS if grading(name, grader)(gold, response).verdict == "correct"]
    assert right == [name for name in CONVENTIONS if name in correct.split()], source


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_answer_is_not_a_right_one_and_no_gold_answer_either(grader: Grader, convention: Convention) -> None:
    for gold, response in (
        ("12", ""),
        ("", "I give up."),
        ("12", "\\boxed{}"),
        ("12", "\\boxed{" * 500),
        ("", "\ud800"),
    ):
        assert grading(convention, grader)(gold, response).verdict != "correct"


@pytest.mark.parametrize("harness", [math_verify, string_match, qwen_math, lm_eval])
def test_a_harness_that_hangs_is_killed_and_the_next_answer_is_graded(grader: Grader, harness: object) -> None:
    judge = f"{harness.__name__}:judge"  # type: ignore[attr-defined]
    tower = MINERVA.format("9^{9^{9^{9}}}")
    grade = grader.grade_by(judge, 1.0, "9^{9^{9^{8}}}", tower)
    assert grade.verdict in ("timeout", "incorrect") and grade.seconds < 8
    assert grader.grade_by(judge, 5.0, "12", MINERVA.format("12")).verdict == "correct"


def test_math_verify_that_is_not_installed_is_missed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check(CONVENTIONS)
    monkeypatch.setitem(sys.modules, "math_verify", None)
    check(["final_answer", "qwen_math"])
    with pytest.raises(ConfigError, match="pip install math-verify"):
        check(CONVENTIONS)


@pytest.mark.shared
def test_qwen_math_reads_and_grades_as_qwen_did(grader: Grader, shared_data: Path) -> None:
    """800 samples of Qwen2.5-Math with what its evaluation read in each and its verdict."""
    (file,) = (shared_data / "traces/qwen_rm_maj_100x8").glob("*.jsonl")
    grade = grading("qwen_math", grader)
    for row in map(json.loads, file.read_text("utf-8").splitlines()):
        for output, read, right in zip(row["outputs"], row["preds"], row["scores"], strict=True):
            found = grade(row["answer"], output)
            assert (found.extracted, found.verdict == "correct") == (read, right), row["id"]
