"""No answer string hangs or kills a worker: the grader's child really dies, and the next one works."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import REPO

from pipeline.grading import Grader, child

LIMIT_S = 1.0
TOWER = r"9^{9^{9^{9}}}"
SLOW = r"\int_0^{9} \sin(e^{x^{7}}) dx"
"""Keeps sympy busy for minutes."""


def children(of: int) -> set[int]:
    """The grading processes that a process has started and not yet buried."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and b"pipeline.grading" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


@contextmanager
def processes(time_limit_s: float = LIMIT_S) -> Iterator[tuple[Grader, int, int]]:
    """A grader, warm, with the ids of its supervisor and of its worker."""
    with Grader(time_limit_s=time_limit_s) as made:
        before = children(os.getpid())
        made.grade("x", r"\boxed{y + 1}")
        (supervisor,) = children(os.getpid()) - before
        (worker,) = children(supervisor)
        yield made, supervisor, worker


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


@pytest.fixture(scope="module")
def quick() -> Iterator[Grader]:
    """A grader with a short limit, warm."""
    with Grader(time_limit_s=LIMIT_S) as made:
        made.grade("x", r"\boxed{y}")
        yield made


HOSTILE = {
    "the tower that Math-Verify hangs on": "5^(5^(5^(5^5)))",
    "a tower": TOWER,
    "a long tower": "2^" * 3000 + "2",
    "a factorial": "100000000!",
    "factorials": "((((9!)!)!)!)!",
    "a binomial": r"\binom{10^9}{5*10^8}",
    "a power of a sum": "(x+1)^{100000}",
    "nested fractions": r"\frac{1}{" * 2000 + "1" + "}" * 2000,
    "nested brackets": "(" * 5000 + "1" + ")" * 5000,
    "many digits": "9" * 190_000,
    "a huge exponent": "1e999999999",
    "a big set": r"\{" + ",".join(map(str, range(20_000))) + r"\}",
    "open environments": r"\begin{matrix}" * 500,
    "a command": "__import__('os').system('touch {pwned}')",
    "an evaluation": "().__class__.__bases__[0].__subclasses__()",
    "a line of its own": '1\n["correct", "number"]\n',
    "an integral without end": SLOW,
    "a sum without end": r"\sum_{k=1}^{10^{12}} \sin(k^3)",
    "fifty intervals": r" \cup ".join(f"({n},{n}.5]" for n in range(50)),
    "a macro": r"\def\a{\a\a}\a",
    "controls": "\0\r\x1b[2J\ud800",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_gets_a_verdict_in_time_and_the_next_one_is_graded(
    name: str, quick: Grader, tmp_path: Path
) -> None:
    pwned = tmp_path / "pwned"
    quick.grade("x", r"\boxed{z}")  # warm, also after the answer before
    started = time.monotonic()
    grade = quick.grade("17", r"\boxed{" + HOSTILE[name].replace("{pwned}", str(pwned)) + "}")
    assert time.monotonic() - started < LIMIT_S + child.WALL_OVER_CPU_S + 1
    assert grade.verdict in ("incorrect", "unparsable", "timeout")
    assert not pwned.exists()
    assert quick.grade("x + 1", r"\boxed{1 + x}").verdict == "correct"


@pytest.mark.parametrize("gold", [TOWER, "((((9!)!)!)!)!"])
def test_a_hostile_gold_answer_is_no_worse(gold: str, quick: Grader) -> None:
    grade = quick.grade(gold, r"\boxed{17}")
    assert (grade.verdict, grade.extracted) == ("incorrect", "17")
    assert quick.grade(gold, rf"\boxed{{{gold}}}").verdict == "correct"
    assert quick.grade(gold, rf"\boxed{{1 + {gold}}}").matched_by == "too_large"


def test_ten_megabytes_of_digits_are_no_answer(quick: Grader) -> None:
    started = time.monotonic()
    assert quick.grade("1", r"\boxed{" + "1" * 10_000_000 + "}").verdict == "unparsable"
    assert quick.grade("1" * 10_000_000, r"\boxed{1}").verdict in ("incorrect", "unparsable", "timeout")
    assert time.monotonic() - started < 2 * (LIMIT_S + child.WALL_OVER_CPU_S)


def test_a_worker_that_exceeds_its_time_is_dead_when_the_verdict_comes_and_the_next_is_warm() -> None:
    with processes() as (made, supervisor, worker):
        grade = made.grade("x", rf"\boxed{{{SLOW}}}")
        assert (grade.verdict, grade.matched_by) == ("timeout", "time_limit")
        assert LIMIT_S * 0.9 < grade.seconds < LIMIT_S + child.WALL_OVER_CPU_S + 1
        assert not (Path("/proc") / str(worker)).exists()
        assert made.grade("x^2", r"\boxed{x \cdot x}").seconds < 0.5
        (second,) = children(supervisor)
    assert gone(second) and gone(supervisor)


def test_a_worker_that_dies_of_itself_is_a_verdict_and_is_replaced() -> None:
    with processes(time_limit_s=20) as (made, _, worker):
        threading.Timer(0.3, os.kill, (worker, signal.SIGKILL)).start()
        grade = made.grade("x", rf"\boxed{{{SLOW}}}")
        assert (grade.verdict, grade.matched_by) == ("timeout", "memory_limit")
        assert made.grade("x", r"\boxed{x}").verdict == "correct"


def test_a_supervisor_that_dies_is_a_verdict_and_is_replaced() -> None:
    with processes(time_limit_s=20) as (made, supervisor, worker):
        threading.Timer(0.3, lambda: [os.kill(pid, signal.SIGKILL) for pid in (supervisor, worker)]).start()
        grade = made.grade("x", rf"\boxed{{{SLOW}}}")
        assert (grade.verdict, grade.matched_by) == ("timeout", "lost")
        assert made.grade("x^2", r"\boxed{x \cdot x}").verdict == "correct"


def test_a_worker_has_a_memory_limit_and_none_of_our_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    monkeypatch.setenv("SOME_OTHER_VARIABLE", "sk-hidden")
    with processes() as (_, _, worker):
        proc = Path("/proc") / str(worker)
        (line,) = [line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max address space")]
        assert line.split()[3:5] == [str(child.MEMORY_LIMIT_BYTES)] * 2
        environment = (proc / "environ").read_bytes()
    assert b"PYTHONPATH=" in environment and b"sk-hidden" not in environment


PARENT = """
import sys
from pipeline.grading import Grader
made = Grader(time_limit_s=1)
made.grade("x", r"\\boxed{y + 1}")
print("grading", flush=True)
made.grade("x", sys.argv[1])
"""


def test_processes_whose_parent_was_killed_end_by_themselves() -> None:
    command = [sys.executable, "-c", PARENT, rf"\boxed{{{SLOW}}}"]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"grading\n"
        (supervisor,) = children(parent.pid)
        (worker,) = children(supervisor)
        time.sleep(0.2)
        parent.kill()
    time.sleep(0.2)
    assert alive(worker)
    assert gone(worker) and gone(supervisor)
