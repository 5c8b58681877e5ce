"""The grader: is a response's final answer the gold one? It selects training data and scores the student.

In: gold answers and responses. Out: `Grade`s. Math-Verify does the mathematics, in child processes that
are killed when they exceed a time or memory limit, for its own time-out is a SIGALRM: it works in a main
thread only, and in Ray workers it scores 0 or hangs in silence (verl#5635, Math-Verify#65).
"""

import asyncio
import json
import os
import queue
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.prompts import split_thought
from pipeline.records import VerdictName

TIME_LIMIT_S = 2.0
MEMORY_LIMIT_BYTES = 2 << 30
ORPHAN_S = 2.0
"""How long after the time limit a child ends that nobody killed."""
START_LIMIT_S = 120.0
"""A child imports sympy first; on a loaded machine that takes its time."""
MAX_RESPONSE_CHARS = 200_000
"""The end of a longer response is graded: the final answer stands there."""


@dataclass(frozen=True)
class Grade:
    """A verdict, the answer it is about, and the rule that decided (`number`, `math_verify`, ...)."""

    verdict: VerdictName
    extracted: str | None
    matched_by: str
    seconds: float


class Grader:
    """A pool of warm child processes. Safe to share among threads; use as a context manager or `close` it."""

    def __init__(self, workers: int = 1, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._children: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._workers = workers
        # Threads of its own: in the loop's, slow grades would hold up the writing of paid answers.
        self._waiting = ThreadPoolExecutor(workers)
        for _ in range(workers):
            self._children.put(_Child())

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        self._waiting.shutdown(cancel_futures=True)
        for _ in range(self._workers):
            self._children.get().kill()

    def grade(self, gold: str, response: str) -> Grade:
        """Grade one response, in at most the time limit and what a fresh child takes to start."""
        started = time.monotonic()
        answer = final_answer(response)
        if answer is None:
            return Grade("unparsable", None, "no_final_answer", time.monotonic() - started)
        if _plain_number(gold) is not None and _plain_number(gold) == _plain_number(answer):
            return Grade("correct", answer, "number", time.monotonic() - started)
        if _plain_number(gold) is not None and _SUM.search(answer.rpartition("=")[2]):
            return Grade("incorrect", answer, "not_worked_out", time.monotonic() - started)
        with self._child() as child:
            verdict, matched_by = child.ask(gold, answer, self._time_limit_s)
        return Grade(verdict, answer, matched_by, time.monotonic() - started)

    async def agrade(self, gold: str, response: str) -> Grade:
        """`grade` without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._waiting, self.grade, gold, response)

    @contextmanager
    def _child(self) -> Iterator["_Child"]:
        child = self._children.get()
        try:
            yield child
        finally:
            self._children.put(child)


class _Child:
    """One child process: a line of JSON in, a line out. Restarted when it had to be killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, gold: str, answer: str, time_limit_s: float) -> tuple[VerdictName, str]:
        with self._lock:
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps([gold, answer, time_limit_s]).encode() + b"\n")
                process.stdin.flush()
                line = self._read_line(time_limit_s)
            except BrokenPipeError:
                line = b""
            if line is None:
                self.kill()
                return "timeout", "time_limit"
            if not line.endswith(b"\n"):  # the child died: its memory limit, or a crash of the interpreter
                self.kill()
                return "timeout", "memory_limit"
            verdict, matched_by = json.loads(line)
            return verdict, matched_by

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        # Not multiprocessing: a fork of a Ray worker would inherit its threads' locks, a spawn its __main__.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.grading"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_child_environment(),
        )
        if self._read_line(START_LIMIT_S) != b"ready\n":
            self.kill()
            raise RuntimeError("the grader's child process did not start: run `python -m pipeline.grading` to see why")
        return self._process

    def _read_line(self, limit_s: float) -> bytes | None:
        """A line of the child; what there is of it where the child died; None after the limit."""
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        descriptor = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            piece = os.read(descriptor, 65536)
            if not piece:
                return line
            line += piece
        return line


def _child_environment() -> dict[str, str]:
    """What the child needs to import us; no API key is in reach of a hostile answer."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


# --- final answers --------------------------------------------------------------------------------

# Every repeat has a bound: a model that writes thousands of blanks must not cost their square.
_STATEMENT = re.compile(r"\banswer\s{0,9}(?:is|:|=)[\s:*]{0,20}|^(?:A:|####)[ \t]{0,9}", re.IGNORECASE | re.MULTILINE)


def final_answer(response: str, *, cut: bool = False) -> str | None:
    """The answer a response ends with: its last box after the thought, else a clear final statement.

    A response `cut` at a token budget may end inside of its statement: there its line must have ended.
    """
    answer = split_thought(response)[1][-MAX_RESPONSE_CHARS:]
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed or None
    ends = [match.end() for match in _STATEMENT.finditer(answer)]
    if not ends:
        return None
    stated, ended, _ = answer[ends[-1] :].partition("\n")
    if (cut and not ended) or _BOX_OPENS.search(stated):
        return None
    return stated.strip().rstrip("*").removesuffix(".").strip("* \t") or None


_SUM = re.compile(r"\d\s{0,9}(?:[-+*×·÷]|\\(?:times|cdot|div)(?!\s{0,9}10\s{0,9}\^))\s{0,9}\d")
"""A sum that was left to the reader: whoever repeats the problem, "7 + 7 + 6", has not answered it."""

_BOX_OPENS = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|[{}]")


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, braces nested to any depth; None where there is none."""
    opened: list[int | None] = []  # where the box of each open brace starts, None for a brace that is no box
    start, end = -1, -1
    for brace in _BRACE.finditer(text):  # in one pass: boxes that never close must not cost their square
        if brace.group() != "}":
            opened.append(brace.end() if len(brace.group()) > 1 else None)
        elif opened:
            box = opened.pop()
            if box is not None and box > start:
                start, end = box, brace.start()
    return text[start:end].strip() if end >= 0 else None


def last_number(text: str) -> str | None:
    """The last number in a text, thousands separators removed: a reading that no format can please."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return numbers[-1].replace(",", "") if numbers else None


_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def _plain_number(text: str) -> str | None:
    """A decimal number in one spelling: no dollar signs, separators, or zeros that say nothing."""
    bare = text.strip().strip("$").strip().removesuffix(".")
    if not _NUMBER.fullmatch(bare):
        return None
    negative = bare.startswith("-")
    whole, _, part = bare.lstrip("+-").replace(",", "").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    spelled = f"{whole}.{part}" if part else whole
    return f"-{spelled}" if negative and spelled != "0" else spelled


def grade_last_number(gold: str, response: str) -> Grade:
    """Grade the last number in the text, box or no box, thought or no thought."""
    number = last_number(response)
    if number is None:
        return Grade("unparsable", None, "last_number", 0.0)
    same = _plain_number(gold) is not None and _plain_number(gold) == _plain_number(number)
    return Grade("correct" if same else "incorrect", number, "last_number", 0.0)


# --- the child process ----------------------------------------------------------------------------


def _serve_child() -> None:
    """Grade pairs from standard input until it closes. Runs in the child only."""
    import logging
    import resource
    import signal

    answers = os.fdopen(os.dup(1), "w")  # a library's print must not look like a verdict
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    _judge("\\frac{1}{2}x", "(x+1)^2")  # the first one builds parsers and imports half of sympy: not on a row's clock
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        gold, answer, time_limit_s = json.loads(line)
        # The parent kills a child that hangs. Where the parent itself was killed, the kernel does it: no code of
        # ours would run in the middle of a big power.
        signal.setitimer(signal.ITIMER_REAL, time_limit_s + ORPHAN_S)
        verdict = json.dumps(_judge(gold, answer))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(verdict, file=answers, flush=True)


Judged = tuple[Literal["correct", "incorrect", "unparsable"], str]


def _judge(gold: str, answer: str) -> Judged:
    """Compare two answers by Math-Verify, its own time-outs off: the parent holds the clock."""
    from math_verify import parse, verify

    try:
        gold_parsed, answer_parsed = (_parsed(parse, text) for text in (gold, answer))
        if not gold_parsed or not answer_parsed:
            same = "".join(gold.split()) == "".join(answer.split())
            return ("correct", "text") if same else ("unparsable", "gold" if not gold_parsed else "answer")
        equal = verify(gold_parsed, answer_parsed, timeout_seconds=None)
    except MemoryError:
        raise
    except Exception as error:  # sympy raises of every kind on hostile input; a row's fault stays in its row
        return "unparsable", type(error).__name__
    return ("correct", "math_verify") if equal else ("incorrect", "math_verify")


def _parsed(parse: Any, answer: str) -> list[Any]:
    return list(parse(f"\\boxed{{{answer}}}", parsing_timeout=None))


if __name__ == "__main__":
    _serve_child()
