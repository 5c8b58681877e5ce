"""Five families of problems that a 135M model can learn, with the words to explain their solutions in.

In: the numbers that reasoning-gym drew for a problem (its metadata).
Out: a `Task`, and from a task the short solution (`rewrite`) and the long thought (`think`) of a model.
Left to others: which tasks and which faulty replies make up the demo (`generate.py`).

Every number in a solution comes from a `Sheet`, which does the work and keeps its lines. A sheet can slip,
so that a wrong reply is wrong the way a real one is: one bad line, carried through.
"""

import random
import re
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

    def tally(self, so_far: int, item: str, hit: bool, says: str) -> int:
        """Count `item` in or not; `says` is why."""
        value = self._slipped(so_far + hit)
        self.lines.append(Line(f"{item}:", value, f"{says}, {'makes' if hit else 'still'} {value}", ""))
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
    text = meta["expression"]
    ask = rng.choice(["Work out {}.", "What is {}?", "Compute {}.", "Find the value of {}."])
    first, *others = re.findall(r"(?:^|([+-]) )(\d+)", text)

    def solve(sheet: Sheet) -> int:
        total = int(first[1])
        for sign, term in others:
            total = sheet.do(total, sign, int(term))
        return total

    sheet = Sheet()
    answer = solve(sheet)
    if re.search(r"\b(0|10)\b", text) or not all(0 <= line.value <= 20 for line in sheet.lines):
        return None
    return Task("chain_sum", ask.format(text), solve, undo_from(0), "go from left to right", text, answer)


def leg_counting(meta: Meta, rng: random.Random) -> Task | None:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals: dict[str, int] = {name: n for name, n in meta["animals"].items() if 2 <= ANIMALS[name] <= 10}
    if len(animals) < 2 or {"starfish", "sheep", "deer"} & set(animals):
        return None
    plurals = [re.sub("fly$", "flie", re.sub("(is|ch)$", r"\1e", name)) + "s" for name in animals]
    ask = rng.choice(
        [
            "How many legs do {} and {} have?",
            "Count the legs of {} and {}.",
            "A farm keeps {} and {}. How many legs is that?",
        ]
    )

    def solve(sheet: Sheet) -> int:
        first, second = [sheet.do(count, "×", ANIMALS[name]) for name, count in animals.items()]
        return sheet.do(first, "+", second)

    counted = [f"{n} {plural}" for n, plural in zip(animals.values(), plurals, strict=True)]
    facts = ", ".join(f"{plural} have {ANIMALS[name]}" for name, plural in zip(animals, plurals, strict=True))
    return Task(
        "leg_counting",
        ask.format(*counted),
        solve,
        undo_from(2),
        f"count legs: {facts}",
        "all the legs",
        solve(Sheet()),
    )


def simple_equations(meta: Meta, rng: random.Random) -> Task | None:
    found = re.fullmatch(r"(\d+)\*(\w) ([+-]) (\d+) = (\d+)", meta["equation"])
    if not found:
        return None
    a, x, op, b, c = found.groups()
    text = f"{a}{x} {op} {b} = {c}"
    ask = rng.choice(["Solve for {x}: {text}", "Find {x} if {text}.", "If {text}, what is {x}?"])

    def solve(sheet: Sheet) -> int:
        return sheet.do(sheet.do(int(c), "-" if op == "+" else "+", int(b)), "/", int(a))

    plan = f"{'subtract' if op == '+' else 'add'} {b}, then divide by {a}"
    return Task("simple_equations", ask.format(x=x, text=text), solve, undo_from(0), plan, x, solve(Sheet()))


def count_bits(meta: Meta, rng: random.Random) -> Task | None:
    bits: str = meta["binary"]
    ask = rng.choice(
        [
            "How many 1 bits does the binary number {} have?",
            "Count the ones in the binary number {}.",
            "How many digits of the binary number {} are 1?",
        ]
    )

    def solve(sheet: Sheet) -> int:
        count = 0
        for bit in bits:
            count = sheet.tally(count, bit, bit == "1", bit)
        return count

    return Task(
        "count_bits",
        ask.format(bits),
        solve,
        split_of(len(bits), "digits"),
        "go through the digits",
        "the ones",
        solve(Sheet()),
    )


def number_filtering(meta: Meta, rng: random.Random) -> Task | None:
    numbers, bound = [int(n) for n in meta["original_numbers"]], int(meta["filter_value"])
    larger = "larger" in meta["operation"]
    word = "greater" if larger else "less"
    ask = rng.choice(["How many of {} and {} are {} than {}?", "Of the numbers {} and {}, how many are {} than {}?"])
    if bound in numbers:
        return None

    def solve(sheet: Sheet) -> int:
        count = 0
        for n in numbers:
            hit = (n > bound) == larger
            count = sheet.tally(
                count,
                f"{n} {'>' if n > bound else '<'} {bound}",
                hit,
                f"{n} {'>' if n > bound else '<'} {bound} {'yes' if hit else 'no'}",
            )
        return count

    problem = ask.format(", ".join(map(str, numbers[:-1])), numbers[-1], word, bound)
    return Task(
        "number_filtering",
        problem,
        solve,
        split_of(len(numbers), "numbers"),
        f"compare each number with {bound}",
        f"how many are {word}",
        solve(Sheet()),
    )


def split_of(size: int, what: str) -> Callable[[Sheet], str]:
    """The check that those counted in and those left out make up all."""

    def check(sheet: Sheet) -> str:
        count = sheet.lines[-1].value
        return f"{size - count} of the {size} {what} are left out, and {size} - {size - count} = {count}"

    return check


Builder = Callable[[Meta, random.Random], Task | None]
FAMILIES: dict[str, tuple[Builder, dict[str, Any]]] = {
    "chain_sum": (chain_sum, {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}),
    "leg_counting": (leg_counting, {"min_animals": 2, "max_animals": 2, "min_instances": 2, "max_instances": 5}),
    "simple_equations": (simple_equations, {"min_terms": 2, "max_terms": 2, "min_value": 2, "max_value": 7}),
    "count_bits": (count_bits, {"min_n": 32, "max_n": 511}),
    "number_filtering": (
        number_filtering,
        {"min_numbers": 4, "max_numbers": 5, "min_decimals": 0, "max_decimals": 0, "min_value": 10, "max_value": 99},
    ),
}


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
