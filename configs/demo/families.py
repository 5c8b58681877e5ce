"""Four families of problems that a 135M model can learn, with the words to explain their solutions in.

In: the numbers that reasoning-gym drew for a problem (its metadata).
Out: a `Task`, and from a task the short solution (`rewrite`) and the long thought (`think`) of a model.
Left to others: which tasks and which faulty replies make up the demo (`generate.py`).

Every number in a solution comes from a `Sheet`, which does the work and keeps its lines. A sheet can slip,
so that a wrong reply is wrong the way a real one is: one bad line, carried through.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Meta = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One step as the solver wrote it: `value` is what it got, right or not."""

    head: str
    value: int
    long: str
    undo: str

    def short(self) -> str:
        return f"{self.head} {self.value}"


@dataclass
class Sheet:
    """A scratch pad: calculates, counts, keeps the lines, and gets line `slip_at` wrong by `slip_by`."""

    slip_at: int = -1
    slip_by: int = 0
    lines: list[Line] = field(default_factory=list)

    def do(self, left: int, op: str, right: int) -> int:
        """Calculate; the long form adds and subtracts in tens and ones."""
        exact = {"+": left + right, "-": left - right, "×": left * right, "/": left // max(right, 1)}[op]
        value = self._slipped(exact)
        head, tens, ones = f"{left} {op} {right} =", right // 10 * 10, right % 10
        long = f"{head} {value}"
        if op in "+-" and tens and ones:
            middle = left + tens if op == "+" else left - tens
            long = f"{left} {op} {tens} = {middle}, then {middle} {op} {ones} = {value}"
        back = "-" if op == "+" else "+"
        undo = f"{right} × {value} = {left}" if op == "/" else f"{value} {back} {right} = {left}"
        self.lines.append(Line(head, value, long, undo))
        return value

    def tally(self, so_far: int, says: str, hit: bool) -> int:
        """Count in what `says` tells of, or not. Each line says why: without, a small model counts every line."""
        value = self._slipped(so_far + hit)
        judged = f"{says}, {'yes' if hit else 'no'}"
        self.lines.append(Line(f"{judged}:", value, f"{judged}, {'makes' if hit else 'still'} {value}", ""))
        return value

    def _slipped(self, exact: int) -> int:
        return max(0, exact + self.slip_by) if len(self.lines) == self.slip_at else exact


def undo_from(first: int) -> Callable[[Sheet], str]:
    """The check that calculates back from the answer to the first value."""
    return lambda sheet: ", ".join(line.undo for line in reversed(sheet.lines[first:]))


@dataclass(frozen=True)
class Task:
    """A problem, how to solve it, and the words for that."""

    family: str
    problem: str
    solve: Callable[[Sheet], int]
    check: Callable[[Sheet], str]
    plan: str  # in the imperative
    goal: str  # what is asked for
    answer: int


def chain_sum(meta: Meta, rng: random.Random) -> Task | None:
    """Single digits added from left to right, none of the totals above 20."""
    text: str = meta["expression"]
    ask = rng.choice(["Work out {}.", "What is {}?", "Compute {}.", "Find the value of {}."])
    terms = [int(term) for term in text.split(" + ")] if "-" not in text else []
    if len(terms) < 3 or 0 in terms or sum(terms) > 20:
        return None

    def solve(sheet: Sheet) -> int:
        total = terms[0]
        for term in terms[1:]:
            total = sheet.do(total, "+", term)
        return total

    return Task("chain_sum", ask.format(text), solve, undo_from(0), "go from left to right", text, sum(terms))


def comparing(meta: Meta, rng: random.Random) -> Task | None:
    """How many digits of a list are greater (or less) than another."""
    numbers, bound = [int(n) for n in meta["original_numbers"]], int(meta["filter_value"])
    word, sign = ("greater", ">") if "larger" in meta["operation"] else ("less", "<")
    ask = rng.choice(["How many of {} and {} are {} than {}?", "Of the numbers {} and {}, how many are {} than {}?"])
    if bound in numbers or not 2 <= bound <= 8:
        return None
    problem = ask.format(", ".join(map(str, numbers[:-1])), numbers[-1], word, bound)

    def judge(n: int) -> tuple[bool, str]:
        return (n > bound) == (sign == ">"), f"{n} {'>' if n > bound else '<'} {bound}"

    return walk("comparing", problem, numbers, judge, f"compare each number with {bound}", f"how many are {word}")


def parity(meta: Meta, rng: random.Random) -> Task | None:
    """How many numbers of a list are even (or odd)."""
    numbers = [int(n) for n in meta["original_numbers"]]
    word = "even" if "larger" in meta["operation"] else "odd"
    ask = rng.choice(["How many of {} and {} are {}?", "Count the {2} numbers among {0} and {1}."])
    problem = ask.format(", ".join(map(str, numbers[:-1])), numbers[-1], word)

    def judge(n: int) -> tuple[bool, str]:
        return (n % 2 == 0) == (word == "even"), f"{n} is {'odd' if n % 2 else 'even'}"

    return walk("parity", problem, numbers, judge, "look at the last digit of each number", f"how many are {word}")


def tens(meta: Meta, rng: random.Random) -> Task | None:
    """How many numbers of a list reach a multiple of ten."""
    numbers, bound = [int(n) for n in meta["original_numbers"]], round(float(meta["filter_value"]), -1)
    ask = rng.choice(
        ["How many of {} and {} are {} or more?", "Which of {} and {} are at least {}? Give their number."]
    )
    if not 20 <= bound <= 90:
        return None
    problem = ask.format(", ".join(map(str, numbers[:-1])), numbers[-1], int(bound))

    def judge(n: int) -> tuple[bool, str]:
        return n >= bound, f"{n} has {n // 10} tens"

    return walk(
        "tens", problem, numbers, judge, f"look at the tens, {int(bound) // 10} are needed", "those that reach it"
    )


def walk(
    family: str, problem: str, numbers: list[int], judge: Callable[[int], tuple[bool, str]], plan: str, goal: str
) -> Task | None:
    """A task that goes through a list and counts; None where a number stands twice, for then the place is lost."""
    if len(set(numbers)) < len(numbers):
        return None

    def solve(sheet: Sheet) -> int:
        count = 0
        for n in numbers:
            hit, says = judge(n)
            count = sheet.tally(count, says, hit)
        return count

    answer = solve(Sheet())
    return Task(family, problem, solve, split_of(len(numbers), "numbers"), plan, goal, answer) if answer else None


def split_of(size: int, what: str) -> Callable[[Sheet], str]:
    """The check that those counted in and those left out make up all."""

    def check(sheet: Sheet) -> str:
        count = sheet.lines[-1].value
        return f"{size - count} of the {size} {what} are left out, and {size} - {size - count} = {count}"

    return check


Builder = Callable[[Meta, random.Random], Task | None]
_LISTS = {"min_numbers": 4, "max_numbers": 6, "min_decimals": 0, "max_decimals": 0}
FAMILIES: dict[str, tuple[Builder, str, dict[str, Any]]] = {
    "chain_sum": (chain_sum, "chain_sum", {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 1}),
    "comparing": (comparing, "number_filtering", {**_LISTS, "min_value": 1, "max_value": 9}),
    "parity": (parity, "number_filtering", {**_LISTS, "min_value": 10, "max_value": 99}),
    "tens": (tens, "number_filtering", {**_LISTS, "min_value": 10, "max_value": 99}),
}
"""Of each family: its builder, and the reasoning-gym dataset (with settings) that draws its numbers."""


def rewrite(task: Task, rng: random.Random, sheet: Sheet) -> str:
    """A short step-by-step solution, as the rewriting model gives it."""
    answer = task.solve(sheet)
    opening = rng.choice(["We {}.", "Let us {}.", "To solve this, {}."]).format(task.plan)
    ending = rng.choice(["The answer is", "So the answer is"])
    return "\n".join([opening, *(line.short() for line in sheet.lines), f"{ending} \\boxed{{{answer}}}."])


def think(task: Task, rng: random.Random, sheet: Sheet, correct_a_slip: bool = False) -> tuple[str, str]:
    """A long thought and the reply after it, as the teacher gives them. A sheet that slips goes unchecked."""
    answer = task.solve(sheet)
    said = [rng.choice(["Okay, I need {}. I {}.", "Let me find {}. I {}."]).format(task.goal, task.plan)]
    wrong_at = rng.randrange(len(sheet.lines)) if correct_a_slip else -1
    for number, line in enumerate(sheet.lines):
        if number == wrong_at:
            said.append(f"{line.head} {line.value + rng.choice([-1, 1])}. No, that is off. Again: {line.long}.")
        else:
            said.append(f"{line.long}.")
    if sheet.slip_by:
        said.append(rng.choice(["That looks right.", "Good, that should be it."]))
    else:
        check = rng.choice(["Wait, let me check:", "Let me double-check:"])
        said.append(f"{check} {task.check(sheet)}. {rng.choice(['It fits.', 'Good.'])}")
    reply = rng.choice(["The answer is \\boxed{{{}}}.", "So the answer is \\boxed{{{}}}."])
    return "\n".join(said), reply.format(answer)
