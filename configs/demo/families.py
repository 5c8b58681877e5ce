"""Three families of problems that a 135M model can learn, with the words to explain their solutions in.

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
        """Add or take away."""
        value = self._slipped(left + right if op == "+" else left - right)
        head, back = f"{left} {op} {right} =", "-" if op == "+" else "+"
        self.lines.append(Line(head, value, f"{head} {value}", f"{value} {back} {right} = {left}"))
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
    return _chain("chain_sum", meta, rng) if "-" not in meta["expression"] else None


def plus_minus(meta: Meta, rng: random.Random) -> Task | None:
    """Single digits added and taken away from left to right, all totals from 1 to 20."""
    return _chain("plus_minus", meta, rng) if "-" in meta["expression"] else None


def _chain(family: str, meta: Meta, rng: random.Random) -> Task | None:
    text: str = meta["expression"]
    ask = rng.choice(["Work out {}.", "What is {}?", "Compute {}.", "Find the value of {}."])
    first, *rest = text.split(" ")
    operations = [(sign, int(term)) for sign, term in zip(rest[::2], rest[1::2], strict=True)]

    def solve(sheet: Sheet) -> int:
        total = int(first)
        for sign, term in operations:
            total = sheet.do(total, sign, term)
        return total

    sheet = Sheet()
    answer = solve(sheet)
    totals = [int(first), *(line.value for line in sheet.lines)]
    if len(operations) < 2 or 0 in (term for _, term in operations) or not all(0 < total <= 20 for total in totals):
        return None
    return Task(family, ask.format(text), solve, undo_from(0), "go from left to right", text, answer)


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
_CHAINS = {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 1}
FAMILIES: dict[str, tuple[Builder, str, dict[str, Any]]] = {
    "chain_sum": (chain_sum, "chain_sum", _CHAINS),
    "plus_minus": (plus_minus, "chain_sum", _CHAINS),
    "comparing": (
        comparing,
        "number_filtering",
        {"min_numbers": 4, "max_numbers": 6, "min_decimals": 0, "max_decimals": 0, "min_value": 1, "max_value": 9},
    ),
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
