"""The results as tables for a terminal and for a job's log.

In: `Results`. Out: plain text of at most WIDTH columns. Levels, lengths and answers are left to the page.
"""

import io
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.report.ablation import ablation
from pipeline.report.formats import inside, interval, label, p_value, points
from pipeline.report.results import Point, Results
from pipeline.report.votes import VotePoint

WIDTH = 100
"""What a job's log shows without wrapping."""


def results_table(results: Results) -> str:
    """Every model at every budget, the votes, and the run's own models against each other, for each benchmark."""
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, no_color=True, force_terminal=False, legacy_windows=False)
    for benchmark in results.benchmarks:
        for table in _tables(results, benchmark):
            console.print(table)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    for failed in (r for r in results.requests if r.failed):
        what = f"{failed.failed} of {failed.asked} requests failed and count in no accuracy"
        lines.append(f"  {label(failed.model)} on {failed.benchmark}: {what}")
    return "\n".join(lines).strip("\n") + "\n"


def _tables(results: Results, benchmark: str) -> Iterator[Table]:
    yield _points(results, benchmark)
    if results.voted(benchmark, results.conventions[0]):
        yield _votes(results, benchmark)
    if ablation(results, benchmark, results.conventions[0]):
        yield _ablation(results, benchmark)


def _table(title: str, name: str, columns: Iterable[str]) -> Table:
    """A table whose first column is `name`, with numbers in the others."""
    table = Table(padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="")
    table.add_column(name, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _points(results: Results, benchmark: str) -> Table:
    headline, others = results.conventions[0], results.conventions[1:]
    title = f"{benchmark}: accuracy with 95% interval, {' and '.join(map(inside, results.curves))}; tokens with the forced answer's"
    accuracies = (f"{name} %" for name in results.conventions)
    table = _table(title, "model", ("budget", *accuracies, "mean\ntokens", "trun-\ncated %", "unpar-\nsable %", "n"))
    for model in results.models:
        for point in results.view(benchmark, headline, model):
            budget = f"{point.budget:,}" if point.curve == "budget_forced" else "natural"
            cells = [_accuracy(point), *(_accuracy(_same(results, point, name)) for name in others)]
            rates = (f"{100 * point.truncated:.1f}", f"{100 * point.unparsable:.1f}")
            table.add_row(label(model), budget, *cells, f"{point.tokens:,.1f}", *rates, f"{point.n:,}")
        table.add_section()
    return table


def _same(results: Results, point: Point, convention: str) -> Point | None:
    """The same answers under another convention."""
    return next(
        (
            p
            for p in results.view(point.benchmark, convention, point.model)
            if (p.curve, p.budget) == (point.curve, point.budget)
        ),
        None,
    )


def _votes(results: Results, benchmark: str) -> Table:
    convention = results.conventions[0]
    title = f"{benchmark}: majority of k answers of natural length, {inside(convention)}; tokens of all k"
    table = _table(title, "model", ("k", "maj@k %", "pass@k %", "mean\ntokens", "answers\nto each", "n"))
    for model in results.models:
        for v in results.voted(benchmark, convention):
            if v.model == model:
                passed = f"{100 * v.passed:.1f} {interval(v.passed_low, v.passed_high, 1)}"
                rest = (f"{v.tokens:,.1f}", f"{v.answers / v.n:.3g}", f"{v.n:,}")
                table.add_row(label(model), str(v.k), _accuracy(v), passed, *rest)
        table.add_section()
    return table


def _ablation(results: Results, benchmark: str) -> Table:
    convention = results.conventions[0]
    at = results.largest(benchmark, convention)[0]
    title = f"{benchmark}: what each stage is worth, {inside(at.curve)} at {at.budget:,} tokens, {inside(convention)}"
    table = _table(title, "models, paired by problem", ("difference, points", "p", "n", "significant"))
    for c in ablation(results, benchmark, convention):
        difference = f"{points(c.difference, 1)} {interval(c.low, c.high, 1)}"
        verdict = "yes" if c.significant else "no"
        table.add_row(f"{label(c.before)} → {label(c.after)}", difference, p_value(c.p_value), f"{c.n:,}", verdict)
    return table


def _accuracy(point: Point | VotePoint | None) -> str:
    return f"{100 * point.accuracy:.1f} {interval(point.low, point.high, 1)}" if point else ""
