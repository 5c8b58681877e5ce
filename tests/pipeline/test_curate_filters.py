"""Which rows stay and which go, for which reason, and what an answer is."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Curate, Source
from pipeline.curate.answers import answer_of
from pipeline.curate.filters import Filters
from pipeline.curate.options import find_options
from pipeline.curate.words import words
from pipeline.grading import answer_type
from pipeline.records import Problem, Rejected
from pipeline.sources import RawRow

SOURCE = Source(name="set", path="x.jsonl", license="MIT")
SETTINGS = Curate(sources=(SOURCE,), benchmarks=(), min_chars=2, max_chars=3_000)


@pytest.fixture(scope="module")
def filters() -> Filters:
    return Filters(SETTINGS)


def row(problem: str | None, answer: str | None = "4", solution: str | None = None, error: str | None = None) -> RawRow:
    return RawRow("x.jsonl:7", problem, answer, solution, None, error=error)


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
        (row("Graph theory: figure out the number of edges."), None),
        (row("How many images has the function?"), None),
        (row("The triangle is shown below."), "needs_image"),
        (row("The table is shown below: | a | b |. Find the sum of its entries."), None),
        (row("Balls are drawn from an urn. How many draws?"), None),
        (row("The data is shown in the table: 3, 4. What is the mean?"), None),
        (row("It is shown that f is odd. Find f(0)."), None),
        (row("(a) Find x. (b) Determine y."), "multi_part"),
        (row("Let x = 1. (1) Find f. (2) If y = 2, find the value of g."), "multi_part"),
        (row("Part A: What is x? Part B: What is y?"), "multi_part"),
        (row("Find x if (1) x > 2 and (2) x < 4."), None),
        (row("f satisfies (i) f(0) = 1 and (ii) f(1) = 2. Find f(3)."), None),
        (row("Find x and y.", "(a) 3, (b) 4"), "multi_part"),
        (row("x" * 3_001), "too_long"),
        (row("x"), "too_short"),
        (row(r"Find \frac{1}{2"), "malformed_latex"),
        (row(r"Find \(x"), "malformed_latex"),
        (row(r"\begin{array}{c} 1 \end{matrix} Find 1."), "malformed_latex"),
        (row(r"A set \{1, 2\} costs \$5. How many?"), None),
        (row("It costs $5. How many for $10?"), None),
        (row("求最大的正整数使得不等式成立"), "wrong_language"),
        (row("Найдите наибольшее целое число, удовлетворяющее неравенству"), "wrong_language"),
        (row("Trouver le plus grand entier naturel tel que la somme des chiffres soit paire"), "wrong_language"),
        (row("Encuentra la suma de todos los enteros positivos que son divisores de este número"), "wrong_language"),
        (row(r"$x^2 + 3x = 0$, $\alpha\beta = ?$"), None),
        (row("Prove that 2 + 2 = 4."), "proof"),
        (row("Let n be even. Show that n^2 is even."), "proof"),
        (row("Find n, and prove that it is the only one."), "proof"),
        (row(r"Prove $x = 2$ for all $y$."), "proof"),
        (row("Let x be odd. Show: x^2 is odd. Verify that x is 1."), "proof"),
        (row("Find the sum.", "proof"), "proof"),
        (row("Determine whether n exists.", None), "proof"),
        (row("Is it possible that $n = 3$?", None), "proof"),
        (row("Kelly can prove to be right. How old is she?"), None),
        (row(r"Let \[x=y.\] Prove that $x$ is $2$."), "proof"),
        (row("Prove or disprove: it is 1."), "proof"),
        (row("Find, with proof, the smallest n.", None), "proof"),
        (row("Find, with proof, the smallest n."), None),
        (row("How many are there? Justify your answer."), None),
        (row("A waterproof coat costs $4. A show that sells it asks 5. The difference?"), None),
        (row("It can be shown that f is linear. Find f(2)."), None),
        (row("x?", None), "no_answer"),
        (row("x?", ""), "no_answer"),
        (row("x?", None, "no box here"), "no_answer"),
        (row("x?", None, r"so \boxed{3}, no \boxed{\frac{1}{2}}"), None),
        (row("x?", "blue"), "non_numeric"),
        (row("x?", "(1, 2)"), "non_numeric"),
        (row("x?", r"x^2 + 1"), "non_numeric"),
        (row("x?", "notfound"), "no_answer"),
        (row("x?", None, "72/6 = 12\n#### 12"), None),
        (row("x?", r"\boxed{7}"), None),
        (row("Which one is it?", "B"), "multiple_choice"), (row("Who wins?", "B"), "non_numeric"),
        (row("Which of these is odd? (A) 2 (B) 3 (C) 4", "B"), "multiple_choice"),
        (row("What is 1 + 2? (A) 2 (B) 3 (C) none of these", "C"), "multiple_choice"),
        (row("What is 1 + 2? (A) 2 (B) 3 (C) 4", "B"), None),
        (row("x?", r"\sqrt{2}^"), "unparsable_answer"),
        (row(None), "malformed_row"),
        (row("  ".strip()), "malformed_row"),
        (row(None, error="no JSON: x"), "malformed_row"),
        (row("Prove that in the figure x = y.", None), "needs_image"),
    ],
)  # fmt: skip
def test_a_row_stays_or_goes_for_one_reason(filters: Filters, given_row: RawRow, reason: str | None) -> None:
    found = filters.examine(given_row, SOURCE, "https://x")
    if reason is None:
        assert isinstance(found, Problem)
        assert (found.source, found.license, found.origin) == ("set", "MIT", "https://x")
    else:
        assert isinstance(found, Rejected)
        assert (found.reason, found.row_id, found.stage) == (reason, "x.jsonl:7", "curate")
        assert found.detail and json.loads(found.row)["problem"] == given_row.problem


@pytest.mark.parametrize(
    ("problem", "reason"), [("如图，求线段的长度", "needs_image"), ("证明：二加二等于四", "proof")]
)
def test_the_rules_know_chinese_where_it_is_wanted(problem: str, reason: str) -> None:
    found = Filters(SETTINGS.model_copy(update={"languages": ("en", "zh")})).examine(row(problem), SOURCE, "")
    assert isinstance(found, Rejected)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("12", "integer"), ("-3", "integer"), ("1,234,567", "integer"), ("$42$", "integer"), ("3.14", "decimal"),
        (".5", "decimal"), ("1,234.5", "decimal"), ("1/2", "fraction"), (r"\frac{1}{2}", "fraction"),
        (r"\dfrac{-3}{4}", "fraction"), (r"\frac12", "fraction"), ("50%", "percentage"), (r"12.5\%", "percentage"),
        ("12 apples", "integer"), (r"10\text{ m}", "integer"), ("x = 5", "integer"), (r"2\sqrt{3}", "real"),
        (r"\frac{\pi}{4}", "real"), ("5!", "real"), ("e^2", "real"), ("3+2i", "complex"),
        ("x^2", "expression"), ("2 n", "expression"), (r"\sin x", "expression"), ("y = 2x + 1", "equation"),
        ("x > 2", "interval"), ("[0, 1)", "interval"), (r"(-\infty, 2) \cup (3, \infty)", "interval"),
        ("7, 9", "set"), (r"\{1, 2\}", "set"), ("(1, 2)", "tuple"), (r"\begin{pmatrix} 1 \\\\ 2 \end{pmatrix}", "matrix"),
        ("A", "choice"), ("(C)", "choice"), ("Monday", "text"), (r"\text{M}", "text"), ("3:1", "text"), ("", "text"),
    ],
)  # fmt: skip
def test_an_answers_type_is_what_the_grader_reads(answer: str, kind: str) -> None:
    assert answer_type(answer) == kind


@pytest.mark.parametrize(
    ("problem", "stem", "values"),
    [
        ("What is 1 + 2?\n(A) 2 (B) 3 (C) 4", "What is 1 + 2?", ["2", "3", "4"]),
        ("How many?\nA) $\\frac{1}{2}$\nB) 3\nC) $x + 1$\nD) 4", "How many?", [r"\frac{1}{2}", "3", "x + 1", "4"]),
        (r"What is $a?$ $\textbf{(A)}\ 7\qquad\textbf{(B)}\ 8\qquad\textbf{(C)}\ 16$", "What is $a?$", ["7", "8", "16"]),
        (r"Then n is $\mathrm{(A) \ 7 } \qquad \mathrm{(B) \ 8 } \qquad \mathrm{(C) \ 9 }$", "Then n is", ["7", "8", "9"]),
        (r"Is $\mathrm{\textbf{(A)} \ }2\qquad \mathrm{\textbf{(B)} \ } 3 \qquad \mathrm{\textbf{(C)} \ } 4$", "Is", ["2", "3", "4"]),
        ("f(x) =\nA. 1\nB. 2\nC. 3\nEnter the letter of the correct option.", "f(x) =", ["1", "2", "3"]),
        ("Points (A) and (B) lie on a line.", None, []),
        ("Team (A) beats (B), who beats (C) in a) one b) two games", None, []),
    ],
)  # fmt: skip
def test_options_are_found_at_the_end_of_a_problem(problem: str, stem: str | None, values: list[str]) -> None:
    found = find_options(problem)
    if stem is None:
        assert found is None or len(found.stem) < len(problem)
    else:
        assert found is not None
        assert (found.stem, list(found.values.values())) == (stem, values)


def test_a_multiple_choice_becomes_an_open_question_with_a_value(filters: Filters) -> None:
    for answer in ("B", "(B)", r"\text{(B)}", "3", "(B) 3"):
        found = filters.examine(row("What is 1 + 2?\n(A) 2\n(B) 3\n(C) 4", answer), SOURCE, "")
        assert isinstance(found, Problem), answer
        assert (found.problem, found.answer, found.answer_type) == ("What is 1 + 2?", "3", "integer")


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Given P(A) = 0.65, P(B) = 0.2, and P(C) = 0.1, calculate the probability of not A.", "0.35"),
        ("How many integers satisfy: (A) They are odd. (B) They are below 9. (C) They are prime.", "3"),
        (r"The times are $\text{A:BC}$ and $\text{D:EF}$. Find 100A + 10B + C.", "275"),
        ("What is 1 + 2? It costs $3. (A) 2 (B) 5 (C) 4", "3"),
    ],
)
def test_labels_that_are_no_options_stay_in_the_problem(filters: Filters, problem: str, answer: str) -> None:
    found = filters.examine(row(problem, answer), SOURCE, "")
    assert isinstance(found, Problem)
    assert (found.problem, found.answer) == (problem, answer)


@pytest.mark.parametrize(
    "problem", ["(A) 1 (B) 2 (C) 3 (D) 4", "Points A. B. C. D lie on a line", "Solve it. (A) 7 (B) Find x. (C) 9"]
)
def test_options_without_a_question_are_no_problem(filters: Filters, problem: str) -> None:
    found = filters.examine(row(problem, "B"), SOURCE, "")
    assert isinstance(found, Rejected)
    assert found.reason in ("multiple_choice", "non_numeric")


@pytest.mark.parametrize("filler", ["\n", " ", "$", "(", "~", "\\quad ", "\\ "])
def test_options_are_looked_for_in_no_time(filler: str) -> None:
    text = "What is 2? (A) 1 (B) 2 (C) 3 " + filler * (7_900 // len(filler))
    started = time.monotonic()
    find_options(text)
    assert time.monotonic() - started < 0.5


def test_hostile_answers_and_solutions_are_read_in_no_time(filters: Filters) -> None:
    started = time.monotonic()
    for answer, solution in (
        ("(a) " * 25_000, None),
        (None, "#" * 100_000 + "\nx"),
        (None, "#### 5" + " " * 100_000 + "\nx"),
    ):
        filters.examine(row("What is 2 + 2?", answer, solution), SOURCE, "")
    for text in (r"\(" * 4_000, r"\[" * 4_000, r"\begin{a}" * 1_000):
        filters.examine(row(f"что {text}"), SOURCE, "")
    assert time.monotonic() - started < 3


def test_where_choices_are_wanted_they_stay_as_they_are() -> None:
    choices = Filters(SETTINGS.model_copy(update={"answer_types": ("choice",)}))
    found = choices.examine(row("What is 1 + 2? (A) 2 (B) 3 (C) 4", "B"), SOURCE, "")
    assert isinstance(found, Problem)
    assert (found.problem, found.answer, found.answer_type) == ("What is 1 + 2? (A) 2 (B) 3 (C) 4", "B", "choice")


@pytest.mark.parametrize(
    ("answer", "solution", "found"),
    [
        ("5", None, "5"), ("$5$", None, "$5$"), (None, r"so \boxed{3}, no \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (None, r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}"), (None, "6 * 2 = 12\n#### 12", "12"),
        (r"The answer is \boxed{7}.", None, "7"), ("NotFound", None, None), (None, None, None), (None, "no box", None),
        ("", r"\boxed{8}", "8"), (None, r"\boxed{}", None),
    ],
)  # fmt: skip
def test_the_answer_is_the_column_or_the_last_box_of_the_solution(
    answer: str | None, solution: str | None, found: str | None
) -> None:
    assert answer_of(row("x?", answer, solution)) == found


def test_a_row_that_was_not_asked_for_is_counted_but_not_copied(filters: Filters) -> None:
    raw = RawRow("x.jsonl:7", "What is 2 + 2?", "4", "long " * 100, None, deselected="level is '1'")
    found = filters.examine(raw, SOURCE, "")
    assert isinstance(found, Rejected)
    assert (found.reason, found.detail) == ("deselected", "level is '1'")
    assert len(found.row) < 300


@pytest.mark.parametrize(
    "text",
    [
        "![" * 50_000,
        "\n" * 100_000,
        ". " * 50_000,
        "prove " * 20_000,
        " and" * 20_000 + "\n \n" * 20_000,
        "(A) " * 20_000,
        "$" * 90_001,
        "(a) " * 9_000,
    ],
)
def test_a_problem_that_repeats_itself_is_read_in_no_time(text: str) -> None:
    filters = Filters(SETTINGS.model_copy(update={"max_chars": 1_000_000}))
    started = time.monotonic()
    filters.examine(row(text), SOURCE, "")
    filters.examine(row("x?", f"({',' * 20_000}"), SOURCE, "")
    words(text)
    assert time.monotonic() - started < 5


@settings(max_examples=100, deadline=None)
@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_any_row_is_either_a_problem_or_rejected(
    filters: Filters, problem: str, answer: str | None, solution: str | None
) -> None:
    assert isinstance(filters.examine(row(problem, answer, solution), SOURCE, ""), (Problem, Rejected))


def _drops(shared_data: Path, name: str, filters: Filters) -> list[tuple[dict[str, str], str]]:
    """The rows of a real set, each with the reason why it goes, "" where it stays."""
    (path,) = (shared_data / name).parent.glob((shared_data / name).name)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = [
        filters.examine(row(each["problem"], each["answer"] and str(each["answer"]), each.get("solution")), SOURCE, "")
        for each in rows
    ]
    return [(each, item.reason if isinstance(item, Rejected) else "") for each, item in zip(rows, found, strict=True)]


@pytest.mark.shared
def test_rules_find_what_people_labelled_in_real_sets(shared_data: Path, filters: Filters) -> None:
    olympiads = Counter(reason for _, reason in _drops(shared_data, "problems/harp_proof/*.jsonl", filters))
    assert olympiads[""] / olympiads.total() < 0.05  # these do hold a number in a box
    assert olympiads["proof"] / olympiads.total() > 0.65
    mathematics = _drops(shared_data, "problems/math_test_5000/*.jsonl", filters)
    assert all(reason for each, reason in mathematics if "[asy]" in each["problem"])
    numeric = [(each["human_type"] == "Real", reason) for each, reason in mathematics if reason in ("", "non_numeric")]
    assert sum(real == (reason == "") for real, reason in numeric) / len(numeric) > 0.99
    assert Counter(reason for _, reason in mathematics)["proof"] == 0
    school = Counter(reason for _, reason in _drops(shared_data, "problems/gsm8k/gsm8k_train.jsonl", filters))
    assert school[""] / school.total() > 0.999
