"""Which answers are the same: a table, with the source of each case that another grader gets wrong."""

import json
from pathlib import Path

import pytest

from pipeline.grading import Grader
from pipeline.grading.voting import classes

YES, NO = "correct", "incorrect"
KNOWN_FAILURES = [
    # gold, answer, verdict, who is known to get it wrong
    ("1-1/e", "1+1/e", NO, "Math-Verify PR#82"),
    ("x^5-x+1=0", "x^5-x+2=0", NO, "Math-Verify#60"),
    ("e^x+x=0", "e^x+x=1", NO, "Math-Verify#60"),
    ("5^(5^(5^(5^5)))", "4", NO, "Math-Verify#65"),
    ("0.5", r"\frac12", YES, "deepconf#15"),
    ("0.0000001", "0.0000002", NO, "Math-Verify rounds to six decimals"),
]  # fmt: skip

TABLE = [
    # gold, answer, verdict
    ("1-1/e", "1+1/e", NO),
    (r"1-\frac1e", "1-e^{-1}", YES),
    ("0.5", r"\frac12", YES),
    (r"\frac13", "0.333333", YES),
    (r"\frac13", "0.33", NO),
    ("x+y=3", "x+y=4", NO),
    ("x^5-x+1=0", "x^5-x+2=0", NO),
    ("x^2+y^2=1", "2x^2+2y^2=2", YES),
    ("y=x^2", "x^2=y", YES),
    (r"50\%", "0.5", YES),
    (r"50\%", "50", YES),
    ("0.5", r"50\%", YES),
    ("0.5", "50", NO),
    ("50", "0.5", NO),
    (r"12.5\%", r"\frac{1}{8}", YES),
    ("10 cm", "10", YES),
    ("10 cm", "10 m", NO),
    ("$10", "10 dollars", YES),
    (r"\$1,000", "1000", YES),
    ("5 km/h", r"5 \text{ km/h}", YES),
    (r"90^\circ", "90", YES),
    (r"90^\circ", "90 degrees", YES),
    (r"2\sqrt{3}", r"\sqrt{12}", YES),
    (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt2}", YES),
    (r"\pi", "3.14159265", YES),
    (r"\pi", "3.14", NO),
    ("3.14", r"\pi", YES),
    ("e^2", "e*e", YES),
    ("x=5", "5", YES),
    ("5", "x=5", YES),
    ("x=5", "y=5", NO),
    ("(1,2)", "(2,1)", NO),
    (r"\{1,2\}", "2,1", YES),
    ("1,2", "(1,2)", YES),
    ("[1,2]", "(1,2)", NO),
    (r"(-\infty,3]", r"x \le 3", YES),
    ("x>2", r"(2,\infty)", YES),
    ("2<x<3", "(2,3)", YES),
    ("[2,3]", r"2\le x\le 3", YES),
    (r"(-\infty,1)\cup(1,\infty)", r"\mathbb{R}\setminus\{1\}", YES),
    (r"x \ne 1", r"(-\infty,1)\cup(1,\infty)", YES),
    ("(0,2)", r"(0,1)\cup[1,2)", YES),
    ("(0,2)", r"(0,1)\cup(1,2)", NO),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", YES),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\4&3\end{bmatrix}", NO),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", YES),
    ("C", r"\text{C}", YES),
    ("C", "(C)", YES),
    ("C", "C. 12", YES),
    ("C", "(B)", NO),
    (r"\textbf{(C)}\ 12", "12", YES),
    (r"\textbf{(C)}\ 12", "C", YES),
    (r"\textbf{(C)}\ 12", "B", NO),
    ("12", "(C) 12", YES),
    ("1,000,000", "1000000", YES),
    ("1{,}000", "1000", YES),
    ("1 000", "1000", YES),
    (r"10,\!080", "10080", YES),
    ("1 or 2", "2, 1", YES),
    ("1 or 2", "1", NO),
    ("-1 and 3", "3,-1", YES),
    ("3和5", "5,3", YES),
    ("1或2", "1,2", YES),
    ("x=1或x=2", "1,2", YES),
    (r"\pm 2", "2", NO),
    (r"\pm 2", "-2, 2", YES),
    ("2,-2", r"\pm 2", YES),
    (r"1\pm\sqrt5", r"1+\sqrt5, 1-\sqrt5", YES),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", YES),
    ("2^{n}-1", "2^n-1", YES),
    ("n!", "n!", YES),
    (r"\binom{10}{3}", "120", YES),
    ("6!", "720", YES),
    ("2^{10}", "1024", YES),
    (r"\sin^2 x + \cos^2 x", "1", YES),
    (r"\tan 45^\circ", "1", YES),
    (r"\log_2 8", "3", YES),
    (r"\ln e", "1", YES),
    (r"\text{Evelyn}", "Angela", NO),
    (r"\text{Evelyn}", "Evelyn", YES),
    ("yes", "Yes", YES),
    ("odd", "odd", YES),
    ("even", "odd", NO),
    ("3:2", "3:2", YES),
    ("3:2", "2:3", NO),
    ("12:00", "12:00", YES),
    ("1.5e3", "1500", YES),
    (r"1.5\times10^3", "1500", YES),
    (r"3 \times 10^{-5}", "0.00003", YES),
    (r"137 \frac{1}{2}", "137.5", YES),
    ("137 1/2", r"\frac{275}{2}", YES),
    ("2516_8", "2516", YES),
    ("2516_8", "2517", NO),
    ("i", "-i", NO),
    ("1+2i", "2i+1", YES),
    ("(1+i)^2", "2i", YES),
    ("x^2+2x", "x(x+2)", YES),
    ("3R^2", "3r^2", YES),
    (r"\frac{1}{2}bh", r"\frac{bh}{2}", YES),
    ("f(x)=2x", "y=2x", YES),
    ("f(x)=2x", "2x", YES),
    ("2x", "f(x)=2x", YES),
    ("a_n=2n", "2n", YES),
    ("S_n = n^2", "n^2", YES),
    (r"(3,\frac{\pi}{2})", r"(3, \pi/2)", YES),
    (r"\left(3,\frac\pi2\right)", "(3,1.570796)", YES),
    ("0", "0.0", YES),
    ("-0", "0", YES),
    ("10^{100}", "10^{100}+1", NO),
    ("10^{-70}", "0", NO),
    ("0", "10^{-70}", NO),
    (r"\frac{1}{3}", "0.3333333333", YES),
    ("2/3", "0.6667", NO),
    ("0.67", "2/3", NO),
    ("0.667", "2/3", YES),
    ("1.414", r"\sqrt2", YES),
    ("1.41", r"\sqrt2", YES),
    (r"\emptyset", r"\varnothing", YES),
    (r"\text{no solution}", "no solution", YES),
    (r"\infty", r"\infty", YES),
    (r"\infty", "5", NO),
    ("a<b<c", "c>b>a", YES),
    ("a<b<c", "a<c<b", NO),
    (r"x\in[1,2]", "[1,2]", YES),
    ("[1,2]", r"x\in[1,2]", YES),
    ("2x>4", "x>2", YES),
    ("(1,2),(3,4)", "(3,4),(1,2)", YES),
    ("(1,2),(3,4)", "(1,2)", NO),
    ("(1,2,3)", "1,2,3", YES),
    (r"\sqrt[3]{-8}", "-2", YES),
    (r"\frac{-1}{2}", r"-\frac12", YES),
    (r"-\frac{1}{-2}", r"\frac12", YES),
    ("|x|", r"\sqrt{x^2}", YES),
    ("5", "5, 6, 7", NO),
    ("5", r"\boxed{5}, \boxed{6}", NO),
    ("5", "5 or 6", NO),
    ("1,2", "1,2,2", YES),
    ("x", "X", YES),
    ("ABC", "ABC", YES),
    (r"\frac{7}{9}", "7/9", YES),
    (r"x = \frac{-1 \pm \sqrt{5}}{2}", r"\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}", YES),
    ("x=1,y=2", "(1,2)", YES),
    ("(x,y)=(1,2)", "(1,2)", YES),
    ("x=1,y=2", "y=2,x=1", YES),
    ("x=1,y=2", "x=2,y=1", NO),
    ("2,3,5", r"\{2, 3, 5\}", YES),
    ("August", "august", YES),
    (r"\text{(A)}", "A", YES),
    (r"6\text{ and }8", "6,8", YES),
    (r"4\frac{1}{2}", "4.5", YES),
    (r"80^\circ", r"80^{\circ}", YES),
    (r"9\pi", "28.27", NO),
    ("28.27", r"9\pi", YES),
    ("28.274", r"9\pi", YES),
    ("1/2 < x < 1", r"\frac12<x<1", YES),
    ("k>1", r"k\ge1", NO),
    ("-3 < k", "k>-3", YES),
    ("12:30 PM", "12:30 pm", YES),
    (r"12\text{ cm}^2", "12 square centimeters", YES),
    (r"12\text{ cm}^2", r"12\text{ cm}^3", NO),
    (r"\frac{x}{y}", "x/y", YES),
    (r"\lfloor 3.7\rfloor", "3", YES),
    ("x^{2}+1", "1+x**2", YES),
    (r"\sqrt{x}", "x^{1/2}", YES),
    (r"\sqrt{x}", "x^(1/2)", YES),
    ("sqrt(3)/2", r"\frac{\sqrt3}{2}", YES),
    ("1000000007", "1000000007", YES),
    (r"\dfrac{1}{2}", r"\tfrac12", YES),
    (r"\overline{AB}", "AB", YES),
    (r"3 \text{ hours}", "3", YES),
    (r"\text{3 hours}", "3", YES),
    (r"\text{Monday}", "Monday", YES),
    (r"-\infty < x < \infty", r"\mathbb{R}", YES),
    (r"x\equiv 3\pmod 7", r"x \equiv 3 \pmod{7}", YES),
    (r"R^2-r^2", r"0", NO),
    (r"\frac{R}{r}", r"1", NO),
    (r"2Rr", r"2R^2", NO),
    (r"R-r", r"r-R", NO),
    (r"\Delta", r"\delta", NO),
    (r"\frac{\sqrt{4009}}{2^{2004}}", r"-\frac{\sqrt{4009}}{2^{2004}}", NO),
    (r"\frac{\pi}{10^{61}}", r"0", NO),
    (r"e^{200}", r"e^{200}+1", NO),
    (r"\sqrt{10^{70}+1}", r"10^{35}", NO),
    (r"10^{100}+\sqrt2", r"10^{100}+\sqrt3", NO),
    (r"\frac{(1+\sqrt2)^{2010}+(1-\sqrt2)^{2010}}2", r"\frac{(1+\sqrt2)^{2010}}2", NO),
    (r"5", r"√15", NO),
    (r"5", r"\sqrt 15", NO),
    (r"4", r"2√12", NO),
    (r"41/2", r"4 1/2", NO),
    (r"11/2", r"1 1/2", NO),
    (r"12", r"1 2", NO),
    (r"12", r"1\,2", NO),
    (r"45", r"4\quad 5", NO),
    (r"50", r"5\text{0}", NO),
    (r"p-q", r"pq", NO),
    (r"x-y", r"xy", NO),
    (r"a.b", r"ab", NO),
    (r"x'", r"x", NO),
    (r"1300_5", r"1300_4", NO),
    (r"52_8", r"52_9", NO),
    (r"101", r"101_2", NO),
    (r"\approx 8.24 \text{ mph}", r"\approx 8.28 \text{ mph}", NO),
    (r"\approx 8", r"\approx x", NO),
    (r"5", r"5 million", NO),
    (r"5 billion", r"5 million", NO),
    (r"5", r"5 dozen", NO),
    (r"5", r"5 pi", NO),
    (r"5", r"5 root two", NO),
    (r"5", r"5 over two", NO),
    (r"5", r"5 plus x", NO),
    (r"5", r"5 xy", NO),
    (r"5", r"5 infinity", NO),
    (r"5", r"5\text{i}", NO),
    (r"5", r"5 \text{ squared}", NO),
    (r"5", r"5 \text{ or more}", NO),
    (r"5", r"5 \text{ or six}", NO),
    (r"5", r"5 is incorrect", NO),
    (r"5m", r"5", NO),
    (r"B", r"(B) or (C)", NO),
    (r"B", r"\textbf{(B)} \textbf{(C)}", NO),
    (r"B", r"B) 12 or C) 13", NO),
    (r"A", r"A. B. C", NO),
    (r"(C)", r"(C), 77", NO),
    (r"A", r"A.5", NO),
    (r"4", r"5 = 4", NO),
    (r"3", r"2+2 = 3", NO),
    (r"3", r"x+1=3", NO),
    (r"4", r"x^2=4", NO),
    (r"4", r"|x|=4", NO),
    (r"0", r"x^2-4=0", NO),
    (r"1", r"\sin x=1", NO),
    (r"x>2", r"y>2", NO),
    (r"x>0", r"x^2>0", NO),
    (r"(0,\infty)", r"|x|>0", NO),
    (r"x\in[-2,7]", r"-x\in[-2,7]", NO),
    (r"[0,1]", r"\sin x\in[0,1]", NO),
    (r"x>1 and x<2", r"\mathbb R", NO),
    (r"x\ne1, x\ne2", r"\mathbb R", NO),
    (r"(2,1)", r"\emptyset", NO),
    (r"(0,0)", r"\emptyset", NO),
    (r"\emptyset", r"(7,3)", NO),
    (r"\emptyset", r"\{\emptyset\}", NO),
    (r"\frac3{13}>\frac9{40}", r"\frac3{11}>\frac9{40}", NO),
    (r"2<3", r"5<7", NO),
    (r"16,3,1,1", r"16,3,1", NO),
    (r"2,2,3", r"2,3,3", NO),
    (r"1,1", r"1", NO),
    (r"1,200", r"1 and 200", NO),
    (r"(1,200)", r"1200", NO),
    (r"1, 200", r"1200", NO),
    (r"x=1,y=2", r"2,1", NO),
    (r"(1,2)", r"\{1,2\}", NO),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"(1,2]", NO),
    (r"1,3,5,...", r"1,3,5", NO),
    (r"|x-5|", r"5-x", NO),
    (r"20", r"|x-10|+|x+10|", NO),
    (r"\frac{3}{4\pi}", r"3/4 \pi", NO),
    (r"\sin x\cdot y", r"\sin(xy)", NO),
    (r"2\frac12\pi", r"\pi", NO),
    (r"720", r"3!!", NO),
    (r"y'=y", r"y''=y", NO),
    (r"\frac{dx}{dt}=kx-a", r"-\frac{dx}{dt}=kx-a", NO),
    (r"20", r"{7+7+6}", NO),
    (r"20", r"[7+7+6]", NO),
    (r"20", r"|7+7+6|", NO),
    (r"20", r"\frac{7+7+6}{1}", NO),
    (r"20", r"7+7+6 \text{ apples}", NO),
    (r"20", r"7\ +\ 7\ +\ 6", NO),
    (r"20", r"2(7+3)", NO),
    (r"3", r"log_2(8)", NO),
    (r"3", r"\operatorname{log}_{2}(8)", NO),
    (r"6", r"\gcd(12,18)", NO),
    (r"12.00", r"12.004", NO),
    (r"0.25", r"0.25\%", NO),
    (r"0.25", r"25", NO),
    (r"p-q", r"-q+p", YES),
    (r"x-y", r"-(y-x)", YES),
    (r"\sqrt{15}", r"\sqrt 15", YES),
    (r"\sqrt{15}", r"√15", YES),
    (r"4 1/2", r"4.5", YES),
    (r"101_2", r"5_{10}", YES),
    (r"5", r"101_2", YES),
    (r"1.732", r"\approx 1.732", YES),
    (r"8.24", r"\approx 8.24 \text{ mph}", YES),
    (r"\approx 8.24 \text{ mph}", r"8.24", YES),
    (r"5 million", r"5000000", YES),
    (r"x>1,x<2", r"1<x<2", YES),
    (r"k\ge1,k\ne2", r"[1,2)\cup(2,\infty)", YES),
    (r"72", r"72 \mathrm{~km} / \mathrm{h}", YES),
    (r"72", r"72\left(\mathrm{~cm}^{2}\right)", YES),
    (r"72", r"72元", YES),
    (r"72", r"72平方厘米", YES),
    (r"\frac13", r"0.\overline{3}", YES),
    (r"0.1\overline{6}", r"\frac16", YES),
    (r"xy", r"yx", YES),
    (r"mn", r"m \cdot n", YES),
    (r"bh/2", r"\frac12bh", YES),
    (r"x\sin x", r"\sin x\cdot x", YES),
    (r"3\ln2", r"\ln2\cdot3", YES),
    (r"\frac{3\pi}4", r"3/4\pi", YES),
    (r"8\sqrt5", r"8sqrt(5)", YES),
    (r"\sqrt{10}", r"√(10)", YES),
    (r"2^{10}", r"2¹⁰", YES),
    (r"AC", r"A,C", YES),
    (r"A,C", r"AC", YES),
    (r"C", r"\text{Option C}", YES),
    (r"C", r"选C", YES),
    (r"\emptyset", r"\text{no solution}", YES),
    (r"\text{no solution}", r"\emptyset", YES),
    (r"\mathbb R", r"\text{all real numbers}", YES),
    (r"(0,1)", r"]0,1[", YES),
    (r"+\infty", r"\infty", YES),
    (r"\pm1,\pm2", r"1,2,-1,-2", YES),
    (r"x=1,y=2", r"\begin{cases}x=1\\y=2\end{cases}", YES),
    (r"4", r"\color{red}{4}", YES),
    (r"4", r"\large 4", YES),
    (r"5", r"\mathbf 5", YES),
    (r"0.693", r"\ln 2", YES),
    (r"\sqrt{ab}", r"\sqrt a\sqrt b", YES),
    (r"\ln(ab)", r"\ln a+\ln b", YES),
    (r"-2,1", r"1 and -2", YES),
    (r"(1,2),(2,1)", r"(2,1);(1,2)", YES),
    (r"3R^2", r"3r^2", YES),
    (r"1 000", r"1000", YES),
    (r"6\text{ and }8", r"6, 8", YES),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{array}{c}1\\2\end{array}\right)", YES),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", YES),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&5\end{array}\right]", NO),
    (r"x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"x = k\pi+\frac{\pi}{4},\ k\in \mathbb{Z}", YES),
    (r"k\in\mathbb{Z}", r"k \in \mathbb Z", YES),
    (r"k\in\mathbb{Z}", r"k \in \mathbb{N}", NO),
    (r"\mathbb{Z}", r"S=\mathbb{Z}", YES),
    (r"\sqrt{9+6\sqrt{3}}", "sqrt(9+6*sqrt(3))", YES),
    (r"x < 1 \cup x > 2", r"(-\infty,1)\cup(2,\infty)", YES),
    (r"(-\infty,5)\cup(5,\infty)", "25/72", NO),
    ("25/72", r"(-\infty,5)\cup(5,\infty)", NO),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer", "verdict", "source"), KNOWN_FAILURES)
def test_what_other_graders_are_known_to_get_wrong(
    gold: str, answer: str, verdict: str, source: str, grader: Grader
) -> None:
    assert grader.grade(gold, rf"\boxed{{{answer}}}").verdict == verdict


@pytest.mark.parametrize(("gold", "answer", "verdict"), TABLE)
def test_an_answer_and_its_gold(gold: str, answer: str, verdict: str, grader: Grader) -> None:
    found = grader.grade(gold, rf"\boxed{{{answer}}}")
    assert (found.verdict == YES) == (verdict == YES), found


def test_an_unreadable_gold_answer_makes_nothing_right(grader: Grader) -> None:
    # open-r1#86: rows with a gold answer that could not be parsed got full reward
    for gold in ("", r"\frac{1", r"\begin{x}"):
        assert grader.grade(gold, r"\boxed{4}").verdict in ("incorrect", "unparsable")


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


# --- votes ----------------------------------------------------------------------------------------


def test_votes_are_grouped_by_value_with_few_comparisons(grader: Grader) -> None:
    spellings = ["0.5", r"\frac12", r"\frac{1}{2}", "1/2", "x=0.5", "50\\%", r"\frac{2}{4}"]
    thirds = ["1/3", r"\frac13", "0.333333", "0.3333333333"]
    roots = [r"2\sqrt2", r"\sqrt{8}", "2.828427"]
    answers: list[str | None] = [*spellings, *thirds, *roots, None]
    answers = [answer for answer in answers for _ in range(4)] + [None] * 4
    asked = []

    def same(one: str, other: str) -> bool:
        asked.append((one, other))
        return grader.same(one, other)

    found = classes(answers, same)
    assert len(answers) == 64
    by_answer = dict(zip(answers, found, strict=True))
    assert {by_answer[answer] for answer in spellings} == {0}
    assert by_answer["1/3"] == by_answer[r"\frac13"] == 1
    assert len({by_answer[answer] for answer in ("1/3", "0.333333", "0.3333333333")}) == 3
    assert by_answer[r"2\sqrt2"] == by_answer[r"\sqrt{8}"] != by_answer["2.828427"]
    assert by_answer[None] is None
    distinct, groups = len(set(answers) - {None}), len(set(found) - {None})
    assert groups == 6 and len(asked) <= distinct * groups


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\pi", r"\pi+10^{-65}"),
        ("10^{30}", "10^{30}+1"),
        (r"\sqrt{2}", "1.41421356"),
        ("28\\%", "28"),
        ("3.14", r"\pi"),
        ("(0,1)", "[0,1]"),
    ],
)
def test_a_tolerance_never_merges_two_values(one: str, other: str, grader: Grader) -> None:
    assert not grader.same(one, other) and grader.same(one, one)


# --- determinism ------------------------------------------------------------------------------------


def test_what_a_worker_has_seen_before_changes_no_verdict() -> None:
    long = "+".join(f"x^{{{n % 9 + 2}}}" for n in range(170))
    with Grader() as fresh, Grader() as used:
        for other in (long, f"1-1+{long}"):
            used.grade(other, r"\boxed{y+3}")
        verdicts = {made.grade(long, rf"\boxed{{1-1+{long}}}").matched_by for made in (fresh, used)}
    assert len(verdicts) == 1


@pytest.mark.shared
def test_neither_order_nor_company_changes_a_verdict(shared_data: Path) -> None:
    rows = []
    for name in ("math_verify_triples", "nemo_math_equal", "math500_29models"):
        lines = (shared_data / "grading" / f"{name}.jsonl").read_text("utf-8").splitlines()
        rows += [json.loads(line) for line in lines[:300]]
    with Grader(workers=2) as first, Grader() as second:
        forwards = [first.grade(row["gold"], row["response"]) for row in rows]
        backwards = [second.grade(row["gold"], row["response"]) for row in reversed(rows)][::-1]
    assert [(grade.verdict, grade.extracted, grade.matched_by) for grade in forwards] == [
        (grade.verdict, grade.extracted, grade.matched_by) for grade in backwards
    ]
