"""The processes that compare answers, killed when they exceed a time or memory limit.

Math-Verify's own time-out is a SIGALRM: it works in a main thread only, and in Ray workers it scores 0 or hangs in
silence (verl#5635, Math-Verify#65). Here `Child` talks to a supervisor: a process that has imported everything and
forks a worker, which asks the judge that a question names. The worker arms two of the kernel's timers before each comparison; one that fires ends the process,
whatever code it is in. The supervisor reports the death as the verdict and forks the next worker, which is warm at
once: a killed worker costs one verdict and a few milliseconds. Where the parent dies, pipes close and both end.
"""

import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pipeline.records import VerdictName

MEMORY_LIMIT_BYTES = 2 << 30
WALL_OVER_CPU_S = 4.0
"""How much longer than the limit a comparison may take on a machine that is busy: the limit counts its own CPU time,
so that verdicts do not depend on what else runs, but nobody waits for ever."""
LOST_S = 30.0
"""How long after that a supervisor that says nothing is taken for lost."""
START_LIMIT_S = 120.0
"""The supervisor imports sympy first; on a loaded machine that takes its time."""
ROWS_PER_WORKER = 20_000
"""A worker that has compared as many is replaced: sympy's caches grow."""

Judged = tuple[VerdictName, str, str | None]
"""A verdict, the rule that gave it, and the answer that was read, where the judge was given a whole response."""


class Child:
    """A supervisor and its worker: a line of JSON in, a line out. Started at its first question, or before."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Raises RuntimeError where no process starts."""
        with self._lock:
            self._running()

    def ask(self, judge: str, gold: str, answer: str, time_limit_s: float) -> Judged:
        """What a judge says of two texts. Raises RuntimeError where no process starts.

        `judge` is "module:function", imported where it works: this process need not import sympy.
        """
        with self._lock:
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps([judge, gold, answer, time_limit_s]).encode() + b"\n")
                process.stdin.flush()
                line = self._read_line(time_limit_s + WALL_OVER_CPU_S + LOST_S)
            except BrokenPipeError:
                line = b""
            if not line.endswith(b"\n"):  # the supervisor itself is gone
                self.kill()
                return "timeout", "lost", None
            verdict, matched_by, *read = json.loads(line)
            return verdict, matched_by, read[0] if read else None

    def kill(self) -> None:
        """End both processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
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
            [sys.executable, "-m", __package__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # to be ended together, and by nobody's Ctrl-C
        )
        if self._read_line(START_LIMIT_S) != b"ready\n":
            self.kill()
            raise RuntimeError(f"the grader's process did not start: run `python -m {__package__}` to see why")
        return self._process

    def _read_line(self, limit_s: float) -> bytes:
        """A line of the supervisor; what there is of it where it died or the limit passed."""
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        descriptor = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 65536) if ready else b""
            if not piece:
                break
            line += piece
        return line


def _environment() -> dict[str, str]:
    """What the processes need to import us; no API key is in reach of a hostile answer."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


# --- in the child ---------------------------------------------------------------------------------


def supervise() -> None:
    """Keep a worker alive until the questions end."""
    import logging

    answers = os.fdopen(os.dup(1), "w")  # a library's print must not look like a verdict
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    _warm_up()
    print("ready", file=answers, flush=True)
    while True:
        worker = os.fork()
        if worker == 0:
            os._exit(_work(answers))
        _, status = os.waitpid(worker, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NEXT:
            continue
        timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGPROF)
        try:
            print(json.dumps(["timeout", "time_limit" if timed_out else "memory_limit"]), file=answers, flush=True)
        except BrokenPipeError:  # nobody waits for it
            os._exit(0)


_NEXT = 3
"""The exit status of a worker that has done its share."""


def _warm_up() -> None:
    """Import sympy and let the parser meet what answers are made of: it learns its grammar as it goes, slowly at
    first, and a worker is a copy of this process."""
    from pipeline.grading import equality

    for answer in _COMMON:
        equality.judge(answer, f"x + {answer}")


_COMMON = (
    r"\frac{1}{2}x^2 + \sqrt{3}y - 2", r"-2(x - 1)^2 + 5", r"\frac{-5 + \sqrt{13}}{6}", r"2^{n-1}", r"e^{2x}", "3R^2",
    r"a_{37}", r"x_1 + x_2", r"\sin(2x) + \cos^2 \theta", r"\log_2(3)", r"\ln x", r"(r+5)(r+5)", r"n!", r"\binom{n}{2}",
    r"|x - 1|", r"\frac{\pi r}{h+r}", r"\frac{9}{4}\pi", "x/2 - y/3", r"10^{\frac{1}{3}}", r"f(x)", r"\lfloor x \rfloor",
    r"\sqrt[3]{2}", r"2 \cdot 3^k", r"3 \times 10^{-8} x", r"\frac{2x+1}{(x-1)(x+2)}", r"x \le \sqrt{4}", "y = 2x + 3",
)  # fmt: skip


def _work(answers: TextIO) -> int:
    """Answer the questions on standard input until it closes. Returns the process's exit status."""
    import resource

    sys.setrecursionlimit(5_000)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    for _ in range(ROWS_PER_WORKER):
        line = _question()
        if not line:
            return 0
        judge, gold, answer, time_limit_s = json.loads(line)
        try:
            function = pkgutil.resolve_name(judge)
            # Their default action ends the process. No handler of ours would run in the middle of a big power.
            signal.setitimer(signal.ITIMER_PROF, time_limit_s)
            signal.setitimer(signal.ITIMER_REAL, time_limit_s + WALL_OVER_CPU_S)
            verdict = function(gold, answer)
        except MemoryError:
            return 1
        except Exception as error:  # sympy raises of every kind on hostile input; a row's fault stays in its row
            verdict = "unparsable", type(error).__name__
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=answers, flush=True)
    return _NEXT


def _question() -> bytes:
    """A line of standard input, not a byte more: what a worker had read ahead would die with it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            return b""
        line += piece
    return line
