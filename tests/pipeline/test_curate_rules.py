"""What curation keeps and drops, and that its result depends on the problems alone."""

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import REPO

from pipeline import config as configuration
from pipeline.config import Source
from pipeline.curate.duplicates import canonical, separate
from pipeline.curate.filters import answer_type, examine
from pipeline.records import AnswerType, Problem, Rejected, problem_id
from pipeline.sources import RawRow, files_of, read, read_benchmark

NUMERIC: tuple[AnswerType, ...] = ("integer", "decimal", "fraction", "percentage")
SOURCE = Source(name="set", path="x.jsonl", license="MIT")


def row(problem: str | None, answer: str | None = "4", solution: str | None = None, error: str | None = None) -> RawRow:
    return RawRow("x.jsonl:7", problem, answer, solution, None, error)


@pytest.mark.parametrize(
    ("given_row", "reason"),
    [
        (row("What is 2 + 2?"), None),
        (row("Find x. [asy] draw((0,0)--(1,1)); [/asy]"), "needs_image"),
        (row("In the figure, AB = 3. Find AC."), "needs_image"),
        (row("As shown, AB = 3."), "needs_image"),
        (row("See ![graph](https://x/y.png). How many?"), "needs_image"),
        (row(r"\includegraphics{a.png} What is x?"), "needs_image"),
        (row("The figure below has how many sides?"), "needs_image"),
        (row("The diagram shows 3 tiles."), "needs_image"),
        (row("Using the picture, count the legs."), "needs_image"),
        (row("如图，求x"), "needs_image"),
        (row("Graph theory: figure out the number of edges."), None),
        (row("How many images has the function?"), None),
        (row("Prove that 2 + 2 = 4."), "proof"),
        (row("Let n be even. Show that n^2 is even."), "proof"),
        (row("Find n, and prove that it is the only one."), "proof"),
        (row(r"Let \[x=y.\] Prove that $x$ is $2$."), "proof"),
        (row("Prove or disprove: it is 1."), "proof"),
        (row("Find, with proof, the smallest n."), "proof"),
        (row("证明：2+2=4"), "proof"),
        (row("A waterproof coat costs $4. A show that sells it asks 5. The difference?"), None),
        (row("It can be shown that f is linear. Find f(2)."), None),
        (row("x?", None), "no_answer"),
        (row("x?", ""), "no_answer"),
        (row("x?", None, "no box here"), "no_answer"),
        (row("x?", None, r"so \boxed{3}, no \boxed{\frac{1}{2}}"), None),
        (row("x?", "blue"), "non_numeric"),
        (row("x?", "(1, 2)"), "non_numeric"),
        (row("x?", r"x^2 + 1"), "non_numeric"),
        (row("x?", "B"), "non_numeric"),
        (row(None), "malformed_row"),
        (row("  ".strip()), "malformed_row"),
        (row(None, error="no JSON: x"), "malformed_row"),
        (row("Prove that in the figure x = y.", None), "needs_image"),
    ],
)  # fmt: skip
def test_a_row_stays_or_goes_for_one_reason(given_row: RawRow, reason: str | None) -> None:
    found = examine(given_row, SOURCE, NUMERIC)
    if reason is None:
        assert isinstance(found, Problem)
        assert (found.source, found.license) == ("set", "MIT")
    else:
        assert isinstance(found, Rejected)
        assert (found.reason, found.row_id, found.stage) == (reason, "x.jsonl:7", "curate")
        assert found.detail and json.loads(found.row)["problem"] == given_row.problem


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("12", "integer"), ("-3", "integer"), ("1,234,567", "integer"), ("$42$", "integer"), ("3.14", "decimal"),
        (".5", "decimal"), ("1,234.5", "decimal"), ("1/2", "fraction"), (r"\frac{1}{2}", "fraction"),
        (r"\dfrac{-3}{4}", "fraction"), (r"\frac12", "fraction"), ("50%", "percentage"), (r"12.5\%", "percentage"),
        ("(1, 2)", "tuple"), (r"\{1, 2\}", "tuple"), ("[0, 1)", "tuple"), ("A", "choice"), ("(C)", "choice"),
        (r"2\sqrt{3}", "expression"), ("x^2", "expression"), (r"\sin x", "expression"), ("yes", "text"),
        ("12 apples", "text"), ("1,23", "expression"), ("", "expression"),
    ],
)  # fmt: skip
def test_an_answers_type_is_told_by_its_spelling(answer: str, kind: str) -> None:
    assert answer_type(answer) == kind


@pytest.mark.parametrize(
    "text", ["![" * 50_000, "\n" * 100_000, ". " * 50_000, "prove " * 20_000, " and" * 20_000 + "\n \n" * 20_000]
)
def test_a_problem_that_repeats_itself_is_read_in_no_time(text: str) -> None:
    started = time.monotonic()
    examine(row(text), SOURCE, NUMERIC)
    examine(row("x?", f"({',' * 20_000}"), SOURCE, NUMERIC)
    canonical(text)
    assert time.monotonic() - started < 3


@settings(max_examples=100, deadline=None)
@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_any_row_is_either_a_problem_or_rejected(problem: str, answer: str | None, solution: str | None) -> None:
    assert isinstance(examine(row(problem, answer, solution), SOURCE, NUMERIC), (Problem, Rejected))


def problem(text: str, solution: str | None = None) -> Problem:
    return Problem(problem_id(text), text, "4", "integer", solution, "set", "MIT", None)


SAME = [
    ("What is 2 + 2?", "what is  2+2"),
    (r"Find $\frac{1}{2} + x$.", r"Find \( \dfrac{1}{2}+x \)".replace(r"\( ", "$").replace(r" \)", "$")),
    (r"\left( 1, 2 \right)", "(1,2)"),
    ("Of 1,000 take 1.", "of 1000 take 1"),
    ("Numbers 1, 2,3, go!", "numbers 1,2, 3 , go"),
]
DIFFERENT = [
    ("What is 1.5 + 2?", "What is 15 + 2?"),
    ("What is 5! - 2?", "What is 5 - 2?"),
    ("What is (3)! - 2?", "What is (3) - 2?"),
    ("Ratio 3:4", "Ratio 34"),
    ("Take 1, 2", "Take 12"),
    ("Take 1 2", "Take 12"),
    ("What is 2 - 1?", "What is 2 + 1?"),
    ("What is 5²?", "What is 52?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_problem_that_only_looks_different_is_a_copy(one: str, other: str) -> None:
    kept, rejected = separate([problem(one), problem(other, "the longer solution")], [])
    assert [item.problem for item in kept] == [other]
    assert [(item.reason, item.detail) for item in rejected] == [("duplicate", f"of {problem_id(other)}")]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_a_problem_with_other_numbers_is_no_copy(one: str, other: str) -> None:
    assert separate([problem(one), problem(other)], [problem("Another?")]) == (
        sorted([problem(one), problem(other)], key=lambda item: item.problem_id),
        [],
    )


def test_a_copy_of_a_benchmark_problem_is_dropped_and_named() -> None:
    benchmark = replace(problem("What is 2 + 2?"), source="aime")
    kept, rejected = separate([problem("WHAT IS 2+2"), problem("Else?")], [benchmark])
    assert [item.problem for item in kept] == ["Else?"]
    assert [(item.reason, item.detail) for item in rejected] == [("contaminated", f"is aime/{benchmark.problem_id}")]


def test_the_result_is_the_same_in_any_order() -> None:
    texts = [text for pair in (*SAME, *DIFFERENT) for text in pair]
    problems = [problem(text, "s" * (len(text) % 4) or None) for text in texts * 2]
    results = set()
    for seed in range(20):
        shuffled = random.Random(seed).sample(problems, len(problems))
        kept, rejected = separate(shuffled, [problem("Ratio 3:4")])
        assert len(kept) + len(rejected) == len(problems)
        results.add((tuple(kept), tuple(sorted(rejected, key=repr))))
    assert len(results) == 1


@pytest.fixture(scope="module")
def demo() -> tuple[list[Problem], list[Rejected], list[Problem]]:
    """The demo's problems and rejects after both steps of curation, and its held-out problems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO)
        config = configuration.load("configs/demo.yaml")
        rows = [
            examine(row, source, config.curate.answer_types)
            for source in config.curate.sources
            for file in files_of(source, None)
            for row in read(file, source.columns)
        ]
        heldout = [item for benchmark in config.evaluate.benchmarks for item in read_benchmark(benchmark, None)]
    problems = [item for item in rows if isinstance(item, Problem)]
    kept, rejected = separate(problems, heldout)
    return kept, [item for item in rows if isinstance(item, Rejected)] + rejected, heldout


def test_the_demos_planted_faults_are_found_and_nothing_else_is_dropped(
    demo: tuple[list[Problem], list[Rejected], list[Problem]],
) -> None:
    kept, rejected, _ = demo
    planted = json.loads((REPO / "configs/demo/planted.json").read_text())
    assert Counter(item.reason for item in rejected) == planted
    assert len(kept) >= 150


def test_no_held_out_problem_of_the_demo_is_in_its_training_set(
    demo: tuple[list[Problem], list[Rejected], list[Problem]],
) -> None:
    kept, _, heldout = demo
    assert len(heldout) >= 150
    assert not {canonical(item.problem) for item in kept} & {canonical(item.problem) for item in heldout}


@pytest.mark.shared
def test_proof_problems_of_a_real_set_are_known(shared_data: Path) -> None:
    (path,) = (shared_data / "problems" / "harp_proof").glob("*.jsonl")
    texts = [json.loads(line)["problem"] for line in path.read_text("utf-8").splitlines()]
    found = [examine(row(text), SOURCE, NUMERIC) for text in texts]
    dropped = [isinstance(item, Rejected) and item.reason in ("proof", "needs_image") for item in found]
    assert sum(dropped) / len(dropped) > 0.6  # the others ask for a value and want its proof unasked
