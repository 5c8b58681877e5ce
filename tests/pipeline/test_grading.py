r"""The verdicts of the grader, and what a response's final answer is."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipeline import grading
from pipeline.grading import Grader

VERDICTS = [
    # gold, response, verdict, extracted
    ("4", r"So \boxed{4}.", "correct", "4"),
    ("4", r"So \boxed{5}.", "incorrect", "5"),
    ("4", r"First \boxed{5}, no: \boxed{4}", "correct", "4"),
    ("4", r"First \boxed{4}, no: \boxed{5}", "incorrect", "5"),
    ("4", "I do not know.", "unparsable", None),
    ("4", "", "unparsable", None),
    ("4", r"\boxed{}", "unparsable", None),
    ("4", r"\boxed{4", "unparsable", None),
    ("4", r"The answer is \boxed{4", "unparsable", None),
    ("4", r"\boxed{4} and then \boxed{", "correct", "4"),
    ("4", r"\fbox{ 4 }", "correct", "4"),
    ("1/2", r"\boxed{\frac{1}{2}}", "correct", r"\frac{1}{2}"),
    ("0.5", r"\boxed{\dfrac12}", "correct", r"\dfrac12"),
    (r"\frac{1}{2}", r"\boxed{0.5}", "correct", "0.5"),
    ("1/2", r"\boxed{\boxed{\frac{1}{2}}}", "correct", r"\frac{1}{2}"),
    ("1000", r"\boxed{1,000}", "correct", "1,000"),
    ("$1,000.00$", r"\boxed{1000}", "correct", "1000"),
    ("-7", r"\boxed{7}", "incorrect", "7"),
    ("007", r"\boxed{+7.0}", "correct", "+7.0"),
    ("0", r"\boxed{-0}", "correct", "-0"),
    ("50\\%", r"\boxed{50\%}", "correct", r"50\%"),
    ("(1, 2)", r"\boxed{(1,2)}", "correct", "(1,2)"),
    ("(1, 2)", r"\boxed{(2,1)}", "incorrect", "(2,1)"),
    (r"\{1,2\}", r"\boxed{\{2,1\}}", "correct", r"\{2,1\}"),
    ("x^2+2x+1", r"\boxed{(x+1)^2}", "correct", "(x+1)^2"),
    (r"2\sqrt{2}", r"\boxed{\sqrt 8}", "correct", r"\sqrt 8"),
    (r"\pi", r"\boxed{3.14}", "incorrect", "3.14"),
    ("20", r"\boxed{7 + 7 + 6}", "incorrect", "7 + 7 + 6"),
    ("42", r"\boxed{6 \times 7}", "incorrect", r"6 \times 7"),
    ("20", r"\boxed{7 + 7 + 6 = 20}", "correct", "7 + 7 + 6 = 20"),
    ("300000", r"\boxed{3 \times 10^5}", "correct", r"3 \times 10^5"),
    ("-20", r"\boxed{-20}", "correct", "-20"),
    ("5", "The final answer is **5**.", "correct", "5"),
    ("5", "Final answer: $5$\n\nHope it helps.", "correct", "5"),
    ("-1", "Thus the final answer is:\n\nAnswer: -1", "correct", "-1"),
    ("18", "3 * 6 = 18\nA: 18", "correct", "18"),
    ("18", "3 * 6 = <<3*6=18>>18\n#### 18", "correct", "18"),
    ("4", r"<think>\boxed{4}</think> The rest", "unparsable", None),
    ("4", r"<think>I say \boxed{4}", "unparsable", None),
    ("4", r"<think>\boxed{5}</think>\boxed{4}", "correct", "4"),
    ("4", r"a</think>b</think>\boxed{4}", "correct", "4"),
    ("4", "x" * 300_000 + r"\boxed{4}", "correct", "4"),
    ("4", r"\boxed{4}" + "x" * 300_000, "unparsable", None),
    ("4", "\\boxed{4\ud800}", "unparsable", "4\ud800"),
    ("", r"\boxed{4}", "unparsable", "4"),
    ("(1, 2), (2, 1)", r"$\boxed{(1, 2)}$ and $\boxed{(2, 1)}$", "correct", "(1, 2), (2, 1)"),
    ("2", r"\boxed{1}, \boxed{2}", "incorrect", "1, 2"),
    ("10455", r"so \boxed{255} more. Final Answer: The final answer is $10,455$. I hope it is correct.", "correct", "10,455"),
    ("23", "Thus\n\nAnswer: $23", "correct", "$23"),
    ("550", "Therefore she would have saved 550 gallons last year.", "correct", "550"),
    ("3", "Therefore, the only possible value of $x$ is 3.", "correct", "3"),
    ("x \\ge 5", r"Therefore $x \geq 5$ is the solution.", "correct", r"x \geq 5"),
    ("7", "\u7b54\u6848\u662f\uff1a7\u3002", "correct", "7"),
    ("1/2", r"\[ \text{Answer: } \frac{1}{2} \]", "correct", r"\frac{1}{2} \]"),
    ("12", "The first is 12 and then I go", "unparsable", None),
    ("3/2", r"Answer: $\frac{3}{2}$" + "\n\n" + r"Answer: $\frac{3", "correct", r"\frac{3}{2}"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "response", "verdict", "extracted"), VERDICTS)
def test_a_response_has_this_verdict(
    gold: str, response: str, verdict: str, extracted: str | None, grader: Grader
) -> None:
    grade = grader.grade(gold, response)
    assert (grade.verdict, grade.extracted) == (verdict, extracted)


READ = [
    # gold, response, whether it is right
    ("10!", "The answer is 10!.", True),
    ("3628800", "The answer is 10! = 3628800.", True),
    ("6", "故答案为：6", True),
    ("6", "故答案为6.", True),
    ("A", "故答案为 A", True),
    ("6", "因此，小明有6个苹果。", True),
    ("17", r"\boxed{12}\color{white}{\boxed{17}}", False),
    (r"4", r"The answer is 5. \phantom{\boxed{4}}", False),
    (r"4", r"\boxed{5}\phantom{\boxed{4}}", False),
    (r"4", r"The answer is 5 <!-- \boxed{4} -->", False),
    (r"4", r"\boxed{5, \boxed{4}}", False),
    (r"4", r"\boxed{-\boxed{4}}", False),
    (r"4", r"$-\boxed{4}$", False),
    (r"4", r"$x \neq \boxed{4}$", False),
    (r"4", r"The answer is not \boxed{4}.", False),
    (r"4", r"\boxed{5} or maybe \boxed{4}", False),
    (r"4", 'Either \\boxed{5}\n\nor\n\n\\boxed{4}', False),
    (r"4", r"\boxed{5}. Alternatively \boxed{4}.", False),
    (r"4", r"The possible values are 4 and 5.", False),
    (r"7", r"The solutions are 4, 5, 6 and 7.", False),
    (r"9", r"Therefore x is 4, 5, 6, 7, 8 or 9.", False),
    (r"5", r"The solutions are x = 4 and x = 5.", False),
    (r"5", r"x = 5 when y = 4.", True),
    (r"4", r"x = 5 when y = 4.", False),
    (r"4", r"The answer is not $4$.", False),
    (r"4", r"The answer is less than $4$.", False),
    (r"4", r"Therefore x is not 4.", False),
    (r"4", r"So x must be greater than 4.", False),
    (r"4", r"Answer: unknown, since 4 cannot be.", False),
    (r"4", r"The final answer is \boxed{4}. This final answer is consistent with 5 cases.", True),
    (r"4", '\\boxed{4}\n\nI double-checked: the final answer is unique.', True),
    (r"5", '\\boxed{4}\n\nWait, that is wrong. The answer is 5.', True),
    (r"4", r"<thinking>\boxed{4}</thinking> I do not know", False),
    (r"4", r"I say <think>\boxed{4}</think> no", False),
    (r"4", r"\boxed{4}</think>", False),
    (r"4", r"<think>a</think>b<think>c \boxed{4}", False),
    (r"12", 'To find the answer: we add 5 and 7.\n5+7 = 12.\nSo she has 12 apples.', True),
    (r"12", 'The answer is not obvious. We add 5 and 7.\n\nSo she has 12 apples.', True),
    (r"12", r"Total: 12", True),
    (r"4", r"x is 4", True),
    (r"12", r"It is 12.", True),
    (r"12", r"She has 12 apples.", True),
    (r"64", r"Kylar needs to pay $64 for 16 glasses.", True),
    (r"18", r"She makes 9 * 2 = $18 every day at the farmer's market.", True),
    (r"4", r"The answer is 4, because 2+2=4.", True),
    (r"(2,3)", r"The center of the circle is (2, 3).", True),
    (r"1,2", r"The solutions are $x=1$ and $x=2$.", True),
    (r"34", r"Therefore, the value is $34\text{ sq. units}$.", True),
    (r"72", 'Thus 72\n#### 72', True),
    (r"4", r"\boxed4", True),
    (r"4", r"<answer>4</answer>", True),
    (r"5", r"x", False),
    (r"y=2x", r"$y = \boxed{2x}$", True),
    (r"2,1", r"$x=\boxed{2}$, $y=\boxed{1}$", True),
    (r"1,2", r"$x=\boxed{2}$, $y=\boxed{1}$", True),
    (r"x=1,y=2", r"$x=\boxed{2}$, $y=\boxed{1}$", False),
    (r"x=2,y=1", r"$x=\boxed{2}$, $y=\boxed{1}$", True),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "response", "right"), READ)
def test_the_answer_is_what_a_careful_reader_takes_for_it(
    gold: str, response: str, right: bool, grader: Grader
) -> None:
    assert (grader.grade(gold, response).verdict == "correct") == right, grading.final_answer(response)


@pytest.mark.parametrize(
    "gold",
    [
        "Natalia sold 48/2 = 24 clips.\n#### 72", "#### 72", "Answer: 72", "The answer is 72.", "**72**",
        r"The smallest possible value of \(a_{10}\) is \(72\).", r"So it is \boxed{72}.", r"\boxed{72",
    ],
)  # fmt: skip
def test_a_gold_answer_may_be_a_solution(gold: str, grader: Grader) -> None:
    assert grader.grade(gold, r"\boxed{72}").verdict == "correct"
    assert grader.grade(gold, r"\boxed{48}").verdict == "incorrect"


ATTACKS = {
    "many boxes": " ".join(rf"\boxed{{{n}}}" for n in range(10)),
    "a list in the box": r"\boxed{1, 2, 3, 4, 5, 6, 7}",
    "either or": r"\boxed{3 \text{ or } 4}",
    "the problem again": r"\boxed{1 + 3}",
    "the problem again, as a series": r"\boxed{\sum_{k=1}^{4} 1}",
    "an interval around it": r"\boxed{[0, 10]}",
    "a plus minus": r"\boxed{\pm 4}",
    "hidden text": r"\boxed{5}\phantom{\boxed{4}}\boxed{5}",
    "a box in the thought": r"<think>\boxed{4}</think> It cannot be known.",
    "a variable": r"\boxed{x}",
    "all numbers": r"\boxed{\mathbb{R}}",
    "a verdict": '\\boxed{5}\n["correct", "number"]',
    "infinity": r"\boxed{\infty}",
    "not a number": r"\boxed{\frac{0}{0}}",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_trick_gets_a_response_graded_correct(attack: str, grader: Grader) -> None:
    assert grader.grade("4", ATTACKS[attack]).verdict != "correct"


def test_a_closed_grader_says_so_and_may_be_closed_again() -> None:
    made = Grader()
    made.close()
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.grade("x", r"\boxed{y + 1}")


def test_a_warm_grader_has_all_its_children_before_the_first_question() -> None:
    me = psutil.Process()
    before = set(me.children())  # those of other tests may end at any time
    with Grader(workers=2).warm() as warm:
        children = set(me.children()) - before
        assert len(children) == 2
        assert warm.grade("x+1", r"\boxed{1+x^2/x}").verdict == "correct"
        assert set(me.children()) - before == children


async def test_threads_and_event_loops_get_the_same_verdicts() -> None:
    expected = [verdict for _, _, verdict, _ in VERDICTS]
    golds, responses = [row[0] for row in VERDICTS], [row[1] for row in VERDICTS]
    with Grader(workers=2) as shared:
        with ThreadPoolExecutor(8) as pool:
            assert [grade.verdict for grade in pool.map(shared.grade, golds, responses)] == expected
        graded = await asyncio.gather(*map(shared.agrade, golds, responses))
    assert [grade.verdict for grade in graded] == expected


@pytest.mark.parametrize(
    ("response", "whole", "cut"),
    [
        (r"\boxed{12} more", "12", "12"),
        (r"The answer is \boxed{1", None, None),
        ("The answer is ", None, None),
        ("The answer is 1", "1", None),
        ("The answer is 12.\nSo", "12", "12"),
        (r"<think>\boxed{12}", None, None),
    ],
)
def test_of_a_cut_response_only_what_had_ended_counts(response: str, whole: str | None, cut: str | None) -> None:
    assert (grading.final_answer(response), grading.final_answer(response, cut=True)) == (whole, cut)


@pytest.mark.parametrize(
    ("gold", "response", "verdict", "extracted"),
    [
        ("4", "so 3 and then 4", "correct", "4"),
        ("4", r"\boxed{4} of 5", "incorrect", "5"),
        ("1000", "it is 1,000.", "correct", "1000"),
        ("-2.5", "x = -2.50", "correct", "-2.50"),
        ("4", "<think>4", "correct", "4"),
        ("4", "no number", "unparsable", None),
        ("1/2", "1/2", "incorrect", "2"),
    ],
)
def test_the_last_number_is_read_whatever_the_format(
    gold: str, response: str, verdict: str, extracted: str | None
) -> None:
    grade = grading.grade_last_number(gold, response)
    assert (grade.verdict, grade.extracted) == (verdict, extracted)


REPEATED = {
    "boxes that never close": "\\boxed{" * 30_000,
    "braces": "{" * 200_000,
    "blanks before a full stop": "The answer is x" + " " * 200_000 + "y",
    "blanks": "The answer is " + " " * 200_000 + "y",
    "the word": "answer " * 30_000,
    "stars": "answer: " + "*" * 200_000,
    "lines": "answer is\n" * 20_000,
    "digits": "1" * 200_000,
    "commas": "1," * 100_000,
    "dots": "1." * 100_000,
    "thoughts": "<think>" * 30_000 + "</think>" * 20_000,
    "other thoughts": "<thinking>x" * 20_000,
    "braces in a box": "\\boxed{" + "{" * 90_000 + "1" + "}" * 90_001,
    "boxes in boxes": "\\boxed{" * 25_000 + "1" + "}" * 25_000,
    "ends of turns": "\\boxed{4}" + "<|im_end|>" * 8_000 + "x",
    "hopes": " I hope it is correct." * 8_000 + "x",
    "whole boxes": "".join(f"\\boxed{{{n}}} " for n in range(14_000)),
    "formulas that never close": "\\(" * 100_000,
    "dollars": "$" * 200_000,
    "statements": "answer is $x " * 15_000,
    "values": "is 1 and " * 20_000,
    "comments": "<!--" * 40_000,
    "phantoms": "\\phantom{" * 20_000,
}


@pytest.mark.parametrize("text", REPEATED)
@pytest.mark.parametrize("read", [grading.final_answer, grading.last_number], ids=["final_answer", "last_number"])
def test_a_text_that_repeats_itself_is_read_in_no_time(text: str, read: Callable[[str], str | None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(read, REPEATED[text]).result(timeout=5)


def precision_and_recall(rows: list[tuple[bool, bool]]) -> tuple[float, float]:
    right = sum(label and found for label, found in rows)
    return right / max(1, sum(found for _, found in rows)), right / max(1, sum(label for label, _ in rows))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [
        ("gsm8k_model_solutions", 1.0, 1.0),
        ("longcot_aime25", 1.0, 1.0),
        ("nemo_math_equal", 1.0, 1.0),
        ("math_verify_triples", 1.0, 0.982),
        ("math500_29models", 0.979, 0.996),
    ],
)
def test_the_grader_agrees_with_labelled_sets(
    name: str, precision: float, recall: float, grader: Grader, shared_data: Path
) -> None:
    lines = (shared_data / "grading" / f"{name}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = []
    for row in rows:
        found.append((bool(row["label"]), grader.grade(row["gold"], row["response"]).verdict == "correct"))
    measured = precision_and_recall(found)
    assert measured[0] >= precision and measured[1] >= recall, measured
