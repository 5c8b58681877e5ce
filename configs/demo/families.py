"""Five families of problems that a 135M model can learn, with the words to explain their solutions in.

In: the numbers that reasoning-gym drew for a problem (its metadata).
Out: a `Task`, and from a task the short solution (`rewrite`) and the long thought (`think`) of a model.
Left to others: which tasks and which faulty replies make up the demo (`generate.py`).

Every number in a solution comes from a `Sheet`, which does the arithmetic and keeps its lines. A sheet can
slip, so that a wrong reply is wrong the way a real one is: one bad line, carried through.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Meta = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One calculation as the solver wrote it: `value` is what it got, right or not."""

    left: int
    op: str
    right: int
    value: int

    def short(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.value}"

    def long(self) -> str:
        """The same, in tens and ones where the second number has both."""
        tens, ones = self.right // 10 * 10, self.right % 10
        if self.op not in "+-" or not tens or not ones:
            return self.short()
        middle = self.left + tens if self.op == "+" else self.left - tens
        return f"{self.left} {self.op} {tens} = {middle}, then {middle} {self.op} {ones} = {self.value}"

    def undo(self) -> str:
        """The calculation that leads back from the value."""
        if self.op == "/":
            return f"{self.right} × {self.value} = {self.left}"
        back = "-" if self.op == "+" else "+"
        return f"{self.value} {back} {self.right} = {self.left}"


@dataclass
class Sheet:
    """A scratch pad: does arithmetic, keeps the lines, and gets line `slip_at` wrong by `slip_by`."""

    slip_at: int = -1
    slip_by: int = 0
    lines: list[Line] = field(default_factory=list)

    def do(self, left: int, op: str, right: int) -> int:
        exact = {"+": left + right, "-": left - right, "×": left * right, "/": left // max(right, 1)}[op]
        value = exact + (self.slip_by if len(self.lines) == self.slip_at else 0)
        self.lines.append(Line(left, op, right, value))
        return value


@dataclass(frozen=True)
class Task:
    """A problem, how to solve it, and the words for that."""

    family: str
    problem: str
    solve: Callable[[Sheet], int]
    plan: str  # in the imperative
    goal: str  # what is asked for
    answer: int
    check_from: int  # the first line that the check undoes


def chain_sum(meta: Meta, rng: random.Random) -> Task | None:
    ask = rng.choice(["Work out {}.", "What is {}?", "Compute {}.", "Find the value of {}."])
    return expression("chain_sum", meta["expression"], ask, "go from left to right", limit=20)


def basic_arithmetic(meta: Meta, rng: random.Random) -> Task | None:
    text = meta["expression"].replace("*", "×")
    ask = rng.choice(["Calculate {}.", "Evaluate {}.", "What does {} come to?", "Find {}."])
    if text.count("×") != 1:
        return None
    return expression("basic_arithmetic", text, ask, "multiply first, then go from left to right", limit=30)


def expression(family: str, text: str, ask: str, plan: str, limit: int) -> Task | None:
    """Products first, then sums from left to right; None where a value is below 0 or above `limit`."""

    def solve(sheet: Sheet) -> int:
        terms = []
        for sign, body in re.findall(r"(?:^|([+-]) )(\d+(?: × \d+)*)", text):
            value, *others = [int(factor) for factor in body.split(" × ")]
            for factor in others:
                value = sheet.do(value, "×", factor)
            terms.append((sign, value))
        total: int = terms[0][1]
        for sign, value in terms[1:]:
            total = sheet.do(total, sign, value)
        return total

    sheet = Sheet()
    answer = solve(sheet)
    if not all(0 <= line.value <= limit for line in sheet.lines) or re.search(r"\b(0|10|1 (?=×))|× 1\b", text):
        return None
    return Task(family, ask.format(text), solve, plan, text, answer, text.count("×"))


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
    return Task("leg_counting", ask.format(*counted), solve, f"count legs: {facts}", "all the legs", solve(Sheet()), 2)


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
    return Task("simple_equations", ask.format(x=x, text=text), solve, plan, x, solve(Sheet()), 0)


def count_bits(meta: Meta, rng: random.Random) -> Task | None:
    number: int = meta["number"]
    ask = rng.choice(
        [
            "How many 1 bits does {} have in binary?",
            "Count the ones in the binary form of {}.",
            "Write {} in binary. How many digits are 1?",
        ]
    )

    def solve(sheet: Sheet) -> int:
        rest, bits = number, 0
        while rest > 0:
            rest = sheet.do(rest, "-", 1 << (rest.bit_length() - 1))
            bits += 1
        return bits

    return Task(
        "count_bits",
        ask.format(number),
        solve,
        "take away powers of two and count them",
        "the 1 bits",
        solve(Sheet()),
        0,
    )


Builder = Callable[[Meta, random.Random], Task | None]
FAMILIES: dict[str, tuple[Builder, dict[str, Any]]] = {
    "chain_sum": (chain_sum, {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}),
    "basic_arithmetic": (
        basic_arithmetic,
        {
            "min_terms": 3,
            "max_terms": 4,
            "min_digits": 1,
            "max_digits": 1,
            "operators": ["+", "-", "*"],
            "allow_parentheses": False,
            "allow_negation": False,
        },
    ),
    "leg_counting": (leg_counting, {"min_animals": 2, "max_animals": 2, "min_instances": 2, "max_instances": 5}),
    "simple_equations": (simple_equations, {"min_terms": 2, "max_terms": 2, "min_value": 2, "max_value": 7}),
    "count_bits": (count_bits, {"min_n": 9, "max_n": 127}),
}


def rewrite(task: Task, rng: random.Random, sheet: Sheet) -> str:
    """A short step-by-step solution, as the rewriting model gives it."""
    answer = task.solve(sheet)
    opening = rng.choice(["We {}.", "Let us {}.", "First we {}.", "To solve this, {}."]).format(task.plan)
    ending = rng.choice(["The answer is", "So the answer is", "Therefore the answer is"])
    return "\n".join([opening, *(line.short() for line in sheet.lines), f"{ending} \\boxed{{{answer}}}."])


def think(task: Task, rng: random.Random, sheet: Sheet, correct_a_slip: bool = False) -> tuple[str, str]:
    """A long thought and the reply after it, as the teacher gives them. A sheet that slips goes unchecked."""
    answer = task.solve(sheet)
    said = [
        rng.choice(["Okay, I need {}. I {}.", "I want {}. The plan: {}.", "Let me find {}. I {}."]).format(
            task.goal, task.plan
        )
    ]
    wrong_at = rng.randrange(len(sheet.lines)) if correct_a_slip else -1
    for number, line in enumerate(sheet.lines):
        lead = rng.choice(["First", "To start"] if not number else ["Now", "Then", "Next"])
        if number == wrong_at:
            wrong = Line(line.left, line.op, line.right, line.value + rng.choice([-1, 1, 10]))
            said.append(f"{lead}, {wrong.short()}. No, that is off. Again: {line.long()}.")
        else:
            said.append(f"{lead}, {line.long()}.")
    if sheet.slip_by:
        said.append(rng.choice(["That looks right.", "Good, that should be it.", "I think that is fine."]))
    else:
        check = rng.choice(["Wait, let me check:", "Let me check by going back:", "Let me verify this:"])
        back = ", ".join(line.undo() for line in reversed(sheet.lines[task.check_from :]))
        said.append(f"{check} {back}. {rng.choice(['It fits.', 'Good.', 'That matches.'])}")
    reply = rng.choice(["The answer is \\boxed{{{}}}.", "So the answer is \\boxed{{{}}}."])
    return "\n".join(said), reply.format(answer)
