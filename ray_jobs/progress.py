"""Progress a person can follow: a live bar in a terminal, a line every few seconds in a job's log.

Workers report through a `Reporter` (picklable, and sparing: at most two calls a second); one Ray actor adds
up; a thread of the driver shows.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol

import ray
from ray.util import metrics
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline import log
from pipeline.errors import BudgetError, UserError
from pipeline.figures import dollars
from ray_jobs import cluster, hanging

REPORT_S = 0.5
PACED = ("requests", "tokens")
LOG_LINE_S = 5.0

Figures = dict[str, float | str]


def _merge(into: Figures, figures: Figures) -> None:
    """Numbers add up, text replaces."""
    for name, value in figures.items():
        old = into.get(name, 0)
        into[name] = value if isinstance(value, str) or isinstance(old, str) else old + value


@ray.remote(num_cpus=0)
class _Tally:
    """The sums, and the same as metrics for Prometheus: `ray_longthought_total{stage, figure}`, what is now and what is expected."""

    def __init__(self, stage: str, expected: dict[str, float]) -> None:
        self._figures: Figures = {"done": 0}
        self._mistake: UserError | None = None
        self._to_end = False
        self._beats: dict[str, tuple[float, hanging.Process]] = {}
        self._stage = stage
        self._metric = metrics.Counter(
            "longthought_total", description="Figures of a stage: rows, requests, tokens.", tag_keys=("stage", "figure")
        )
        gauge = metrics.Gauge(
            "longthought_expected", description="What a stage will come to.", tag_keys=("stage", "figure")
        )
        for figure, value in expected.items():
            gauge.set(value, {"stage": stage, "figure": figure})
        self._now = metrics.Gauge(
            "longthought_now", description="Figures that may be set back.", tag_keys=("stage", "figure")
        )

    def add(self, figures: Figures) -> None:
        _merge(self._figures, figures)
        for figure, value in figures.items():
            if not isinstance(value, str) and value > 0:
                self._metric.inc(value, {"stage": self._stage, "figure": figure})
        self._show_done()

    def put(self, figures: Figures) -> None:
        self._figures.update(figures)
        self._show_done()

    def _show_done(self) -> None:
        self._now.set(float(self._figures["done"]), {"stage": self._stage, "figure": "done"})

    def get(self) -> Figures:
        return self._figures

    def beat(self, actor_id: str, process: hanging.Process) -> None:
        self._beats[actor_id] = (time.monotonic(), process)

    def silent(self, since_s: float) -> dict[str, hanging.Process]:
        now = time.monotonic()
        return {actor: process for actor, (heard, process) in self._beats.items() if now - heard > since_s}

    def ask_to_end(self) -> None:
        self._to_end = True

    def is_to_end(self) -> bool:
        return self._to_end

    def set_mistake(self, mistake: UserError) -> None:
        self._mistake = self._mistake or mistake

    def get_mistake(self) -> UserError | None:
        return self._mistake


class Reporter:
    """A worker's end. `add(done=1, tokens=250, loss="2.31")`: numbers add up, text replaces."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally
        self._ids = log.ids()
        self._beat_s = hanging.BEAT_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: Figures = {}
        self._sent_at = 0.0

    @contextmanager
    def joins(self) -> Iterator[None]:
        """For all of an actor's constructor: keep the log, be missed from now on where the process hangs, tell the user's mistakes."""
        self.keep_log()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        with self.telling():
            yield

    def _beat(self) -> None:
        actor_id, process = hanging.here()
        while True:
            if self._loop:
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()
            self._tally.beat.remote(actor_id, process)
            time.sleep(self._beat_s)

    def works_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """The actor's event loop: it hangs where this does."""
        self._loop = loop

    def keep_log(self) -> None:
        """Tell events of this process as those of the driver's stage, in the log of its node."""
        cluster.keep_log(**self._ids)

    def add(self, **figures: float | str) -> None:
        """Report figures; `done` counts towards the total."""
        _merge(self._unsent, figures)
        if time.monotonic() - self._sent_at > REPORT_S:
            self.flush()

    async def settle(self) -> None:
        """Send what has been held back, and wait until it is there: an actor may end right after."""
        unsent, self._unsent, self._sent_at = self._unsent, {}, time.monotonic()
        await self._tally.add.remote(unsent)

    def put(self, **figures: float | str) -> None:
        """Replace figures: for work that a crash may set back."""
        self._tally.put.remote(figures)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the driver of a user's mistake in the block: of what ends an actor's constructor Ray carries only the text."""
        try:
            yield
        except UserError as mistake:
            ray.get(self._tally.set_mistake.remote(mistake))
            raise

    async def tell(self, mistake: UserError) -> None:
        """Tell the driver of a user's mistake, which it raises when the workers are done."""
        await self._tally.set_mistake.remote(mistake)

    def is_to_end(self) -> bool:
        """Whether the user asked for an end (`Progress.ask_to_end`)."""
        asked: bool = ray.get(self._tally.is_to_end.remote())
        return asked

    def flush(self) -> None:
        """Send what has been held back."""
        if self._unsent:
            unsent, self._unsent, self._sent_at = self._unsent, {}, time.monotonic()
            self._tally.add.remote(unsent)


class Spending(Protocol):
    """What is spent of a budget, by whoever keeps it."""

    budget_usd: float | None

    def spent_usd(self) -> float:
        """Dollars."""


class Progress:
    """The driver's end: a context manager that shows while its body runs. `total` may be None (unknown)."""

    def __init__(self, stage: str, total: int | None, unit: str, spending: Spending | None = None) -> None:
        """`spending` tells what is spent of a budget; without one the dollars are those of the answers reported."""
        self._stage, self._total, self._unit = stage, total, unit
        self._spending = spending if spending is not None and spending.budget_usd is not None else None
        self._budget_usd = self._spending.budget_usd if self._spending else None
        expected = {"done": total, "usd": self._budget_usd}
        self._tally: Any = _Tally.options(**cluster.beside_the_driver()).remote(  # type: ignore[attr-defined]
            stage, {figure: value for figure, value in expected.items() if value is not None}
        )
        self._stop = threading.Event()
        self._console = Console(stderr=True)
        self._threads = [
            threading.Thread(target=copy_context().run, args=(work,), daemon=True) for work in (self._show, self._watch)
        ]
        self.reporter = Reporter(self._tally)

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        log.note("begins", work=self._stage, rows=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reporter.flush()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error is None or isinstance(error, Exception):
            mistake = ray.get(self._tally.get_mistake.remote())
            if isinstance(mistake, BudgetError):
                done = f"{self.figures()['done']:,.0f} of {self._total or 0:,} {self._unit}"
                raise BudgetError(f"{done} are done: {mistake}") from None
            if mistake is not None:
                raise mistake from None

    def ask_to_end(self) -> None:
        """Have workers that look for it (`Reporter.is_to_end`) come to an end."""
        ray.get(self._tally.ask_to_end.remote())

    def figures(self) -> dict[str, float]:
        """The numbers so far; 0 for a name nothing was reported of."""
        self.reporter.flush()
        return {name: value for name, value in ray.get(self._tally.get.remote()).items() if not isinstance(value, str)}

    def _watch(self) -> None:
        """End actors that hang, once they are silent at two looks: the first may have come before beats that had to wait."""
        before: set[str] = set()
        while not self._stop.wait(hanging.BEAT_S):
            silent = ray.get(self._tally.silent.remote(hanging.HUNG_S))
            hanging.end({actor: silent[actor] for actor in before & silent.keys()}, self._stage)
            before = set(silent)

    def _show(self) -> None:
        if self._console.is_terminal:
            self._show_bar()
        else:
            self._show_lines()

    def _show_bar(self) -> None:
        columns = (
            TextColumn("[bold]{task.description:>9}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(self._unit),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Bar(*columns, console=self._console, refresh_per_second=4) as bar:
            task = bar.add_task(self._stage, total=self._total, figures="")
            while True:
                stopping = self._stop.wait(REPORT_S)
                figures = self._now()
                bar.update(task, completed=float(figures["done"]), figures=self._text(figures))
                if stopping:
                    return

    def _show_lines(self) -> None:
        while True:
            stopping = self._stop.wait(LOG_LINE_S)
            figures = self._now()
            print(self._line(figures, time.monotonic() - self._started), file=sys.stderr, flush=True)
            if stopping:
                return

    def _line(self, figures: Figures, seconds: float) -> str:
        done = float(figures["done"])
        rate = done / seconds if seconds else 0.0
        parts = [f"[{self._stage}] {done:,.0f}"]
        if self._total:
            left = (self._total - done) / rate if rate else 0.0
            eta = f", eta {timedelta(seconds=int(left))}" if left > 0 else ""
            parts = [f"[{self._stage}] {done:,.0f} of {self._total:,} {self._unit} ({done / self._total:.0%}{eta})"]
        parts += [f"{rate:.1f}/s", f"{timedelta(seconds=int(seconds))}", self._text(figures)]
        return "  ".join(part for part in parts if part)

    def _now(self) -> Figures:
        figures: Figures = ray.get(self._tally.get.remote())
        if self._total is not None:  # rows that are done again where an actor was lost are told twice
            figures["done"] = min(float(figures["done"]), self._total)
        return {**figures, "usd": self._spending.spent_usd()} if self._spending else figures

    def _text(self, figures: Figures) -> str:
        """The figures beside the rows, with the pace of requests and tokens, and the money beside its budget."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        parts = []
        for name, value in figures.items():
            if isinstance(value, str):
                parts.append(f"{name}={value}")
            elif name == "usd" and (value or self._budget_usd):
                parts.append(self._money(value, float(figures["done"])))
            elif name != "done" and value:
                pace = f" ({value / seconds:,.3g}/s)" if name in PACED else ""
                parts.append(f"{name}={value:,.6g}{pace}")
        return "  ".join(parts)

    def _money(self, usd: float, done: float) -> str:
        text = dollars(usd) + (f" of {dollars(self._budget_usd)}" if self._budget_usd is not None else "")
        return f"{text}, {dollars(usd * self._total / done)} in all" if self._total and done else text
