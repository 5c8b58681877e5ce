"""The grader: is a response's final answer the gold one?"""

import asyncio
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.grading.child import Child, Judged
from pipeline.grading.extraction import final_answer, gold_answer, last_number
from pipeline.grading.quantities import quantity, same_quantity, two_quantities
from pipeline.grading.spelling import MAX_CHARS, choice, key, normal, one_case, spelling_key
from pipeline.records import VerdictName

TIME_LIMIT_S = 2.0

_JUDGE, _JUDGE_EXACTLY = "pipeline.grading.equality:judge", "pipeline.grading.equality:judge_exactly"


@dataclass(frozen=True)
class Grade:
    """A verdict, the answer it is about, the rule that decided (`number`, `text`, `formula`, ...), and seconds."""

    verdict: VerdictName
    extracted: str | None
    matched_by: str
    seconds: float


class Grader:
    """A pool of warm child processes. Safe to share among threads; use as a context manager or `close` it."""

    def __init__(self, workers: int = 1, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._children: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._workers = workers
        # Threads of its own: in the loop's, slow grades would hold up the writing of paid answers.
        self._waiting = ThreadPoolExecutor(workers)
        for _ in range(workers):
            self._children.put(Child())

    def __enter__(self) -> "Grader":
        return self

    def warm(self) -> "Grader":
        """Start the children now; else the first question that needs one waits, on a busy machine for many seconds, and all behind it."""
        for _ in range(self._workers):
            child = self._children.get()
            child.start()
            self._children.put(child)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        self._waiting.shutdown(cancel_futures=True)
        for _ in range(self._workers):
            self._children.get().kill()
        self._workers = 0

    def grade(self, gold: str, response: str) -> Grade:
        """Grade one response, in at most the time limit and what a fresh child takes to start."""
        started = time.monotonic()
        answer = final_answer(response)
        if answer is None:
            return Grade("unparsable", None, "no_final_answer", time.monotonic() - started)
        verdict, matched_by = self.compare(gold_answer(gold), answer)
        return Grade(verdict, answer, matched_by, time.monotonic() - started)

    def compare(self, gold: str, answer: str) -> tuple[VerdictName, str]:
        """Compare two answers: what needs no algebra here, all else in a child."""
        gold, answer, letters = _without_letters(gold, answer)
        if letters:
            return letters
        gold, answer = one_case(gold, answer)
        if max(len(gold), len(answer)) > MAX_CHARS:
            same = "".join(gold.split()) == "".join(answer.split())
            return ("correct", "text") if same else ("unparsable", "too_long")
        gold, answer = normal(gold), normal(answer)  # of one case: what is rewritten depends on it
        return _compared_cheaply(gold, answer) or self._asked(_JUDGE, gold, answer)[:2]

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are exactly the same, neither of them gold: for `voting.classes`."""
        at_sight = same_at_sight(one, other)
        if at_sight is None:
            return self._asked(_JUDGE_EXACTLY, normal(one), normal(other))[0] == "correct"
        return at_sight

    def grade_by(self, judge: str, time_limit_s: float, gold: str, response: str) -> Grade:
        """Grade one response by another's rules: `judge` is "module:function", and reads the whole response."""
        started = time.monotonic()
        verdict, matched_by, answer = self._asked(judge, gold, response, time_limit_s)
        return Grade(verdict, answer, matched_by, time.monotonic() - started)

    def _asked(self, judge: str, gold: str, answer: str, time_limit_s: float | None = None) -> Judged:
        if not self._workers:
            raise RuntimeError("this grader is closed")
        child = self._children.get()
        try:
            return child.ask(judge, gold, answer, time_limit_s or self._time_limit_s)
        finally:
            self._children.put(child)

    async def agrade(self, gold: str, response: str) -> Grade:
        """`grade` without blocking the event loop."""
        return await self.aside(self.grade, gold, response)

    async def aside(self, grade: Callable[[str, str], Grade], gold: str, response: str) -> Grade:
        """What a function that grades gives, without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._waiting, grade, gold, response)


# --- what needs no algebra --------------------------------------------------------------------------


def same_at_sight(one: str, other: str) -> bool | None:
    """Whether two answers are exactly the same, where their spelling or two plain numbers decide it."""
    if spelling_key(one) == spelling_key(other):
        return True
    if max(len(one), len(other)) > MAX_CHARS:
        return False
    number, second = quantity(normal(one)), quantity(normal(other))
    return None if number is None or second is None else number.exact() == second.exact()


def _compared_cheaply(gold: str, answer: str) -> tuple[VerdictName, str] | None:
    """The verdict where the text of two normal forms, or two plain numbers, decide it; None where algebra must."""
    wanted, given = key(gold), key(answer)
    if not wanted or not given:
        return "unparsable", "answer" if wanted else "gold"
    if wanted == given:
        return "correct", "text"
    number, other = two_quantities(gold, answer)
    if number is None or other is None:
        return None
    return ("correct" if same_quantity(number, other) else "incorrect"), "number"


def _without_letters(gold: str, answer: str) -> tuple[str, str, tuple[VerdictName, str] | None]:
    """Both answers without a choice's letter before them, and the verdict where the letters decide."""
    wanted, given = (choice(normal(text)) if len(text) <= MAX_CHARS else None for text in (gold, answer))
    if wanted and given and wanted[0] != given[0]:
        return gold, answer, ("incorrect", "choice")
    if wanted and given and not (wanted[1] and given[1]):
        return gold, answer, ("correct", "choice")
    if wanted and wanted[1]:
        return wanted[1], given[1] if given else answer, None
    return gold, given[1] if given and given[1] and not wanted else answer, None


def grade_last_number(gold: str, response: str) -> Grade:
    """Grade the last number in the text, box or no box, thought or no thought."""
    found = last_number(response)
    if found is None:
        return Grade("unparsable", None, "last_number", 0.0)
    number, wanted = quantity(found), quantity(normal(gold))
    same = number is not None and wanted is not None and number.value == wanted.value
    return Grade("correct" if same else "incorrect", found, "last_number", 0.0)
