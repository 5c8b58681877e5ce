"""The report as Markdown: `report.md`.

In: the whole `Summary`. Out: text. Charts and the answers are left to `page`, the terminal's tables to `terminal`.
"""

from collections.abc import Iterator

from pipeline.figures import count, dollars, duration, percent
from pipeline.markdown import escaped, grid
from pipeline.report import pareto
from pipeline.report.ablation import ablation, finding, question
from pipeline.report.basis import SIGNIFICANCE, basis
from pipeline.report.curves import Curve
from pipeline.report.equal_tokens import EqualTokens
from pipeline.report.formats import inside, interval, label, p_value, points
from pipeline.report.groups import Grouping
from pipeline.report.lengths import Histogram, Side
from pipeline.report.reference import SOURCE, PaperTable, Reference, paper_table
from pipeline.report.results import Comparison, Point, Results
from pipeline.report.summary import Summary
from pipeline.report.votes import VotePoint
from pipeline.stage import Manifest


def markdown(summary: Summary) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown(summary)) + "\n"


def _markdown(summary: Summary) -> Iterator[str]:
    yield f"# {escaped(summary.title)}\n"
    yield from (f"> {escaped(note)}\n" for note in summary.notes)
    yield f"**{escaped(summary.headline.sentence)}**\n"
    yield from (f"- {escaped(detail)}" for detail in summary.headline.details)
    yield "\n## Results\n"
    yield "Budget-forced: each answer cut after so many tokens and, where it had not ended, asked for (those tokens count too)."
    for benchmark in summary.results.benchmarks:
        for convention in summary.results.conventions:
            yield from _view(summary, benchmark, convention)
    for convention in summary.results.conventions:
        if paper := paper_table(summary.results, convention):
            yield f"\n## In the form of the paper's Table 1: {label(convention).lower()}\n"
            yield from _paper(paper)
    if summary.equal_tokens:
        yield "\n## Models at equal tokens, paired by problem\n"
        yield from grid(EQUAL_HEAD, map(_equal_row, summary.equal_tokens))
    if summary.results.comparisons:
        yield "\n## Models compared, paired by problem\n"
        yield from grid(COMPARISON_HEAD, map(_comparison_row, summary.results.comparisons))
        yield f"\n{SIGNIFICANCE}"
    yield "\n## Stages\n"
    yield from grid(STAGE_HEAD, map(_stage_row, summary.stages))
    if summary.curves:
        yield "\n## Training\n"
        yield from grid(CURVE_HEAD, map(_curve_row, summary.curves))
    yield "\n## Conditions\n"
    for group in (summary.conditions.sampling, summary.conditions.grader, summary.conditions.versions):
        yield from (f"- {escaped(name)}: {escaped(value)}" for name, value in group.items())
    yield from (f"- code of {stage}: {escaped(revision)}" for stage, revision in summary.conditions.revisions.items())


def _view(summary: Summary, benchmark: str, convention: str) -> Iterator[str]:
    """All numbers of one benchmark under one convention."""
    results, drawn = summary.results, summary.conditions.drawn
    shown, voted = results.view(benchmark, convention), results.voted(benchmark, convention)
    title = f"{escaped(benchmark)}: {label(convention).lower()}"
    yield f"\n### {title}\n"
    yield from grid(POINT_HEAD, map(_point_row, shown))
    yield f"\n{escaped(basis(results.natural(benchmark, convention) or results.largest(benchmark, convention), drawn))}"
    front = ", then ".join(map(pareto.name, pareto.front([*shown, *voted])))
    yield f"\nOn the Pareto front of accuracy and tokens: {escaped(front)}."
    if voted:
        yield f"\n### {title}, majority of k answers of natural length\n"
        yield from grid(VOTE_HEAD, map(_vote_row, voted))
    if pairs := ablation(results, benchmark, convention):
        yield f"\n### {title}, what each stage is worth\n"
        yield from grid(ABLATION_HEAD, map(_ablation_row, pairs))
        yield f"\n{escaped(basis(results.largest(benchmark, convention), drawn))} {SIGNIFICANCE}"
    for grouping in summary.groupings:
        if (grouping.benchmark, grouping.convention) == (benchmark, convention):
            yield f"\n### {title}, by {inside(grouping.by)}\n"
            yield from _groups(grouping, results)
    for histogram in summary.lengths:
        if (histogram.benchmark, histogram.convention) == (benchmark, convention):
            yield f"\n### {title}, tokens of the answers\n"
            yield from _lengths(histogram)


POINT_HEAD = ("model", "curve", "budget", "accuracy", "mean tokens", "truncated", "forced", "unparsable", "n")
VOTE_HEAD = ("model", "k", "maj@k", "pass@k", "mean tokens of k", "n", "answers to each")
ABLATION_HEAD = ("question", "models", "difference", "p", "n", "finding")
LENGTH_HEAD = ("model", "answers", "number", "median tokens", "10% to 90%", "truncated")
EQUAL_HEAD = ("benchmark", "convention", "models", "curve", "tokens of each", "accuracy", "difference", "p", "n")
COMPARISON_HEAD = ("benchmark", "convention", "models", "budget", "accuracy", "mean tokens", "difference", "p", "n")
STAGE_HEAD = ("stage", "in", "out", "rejected", "requests", "stored replies", "tokens in / out", "cost", "time", "Ray actors")  # fmt: skip
CURVE_HEAD = ("stage", "steps", "first loss", "last loss", "tokens", "time")


def _point_row(p: Point) -> tuple[str, ...]:
    accuracy = f"{percent(p.accuracy, 1)} {interval(p.low, p.high, 1)}"
    rates = (percent(p.truncated, 1), percent(p.forced, 1), percent(p.unparsable, 1))
    n = count(p.n) + (f" ({count(p.failed)} failed)" if p.failed else "")
    return (label(p.model), inside(p.curve), count(p.budget), accuracy, f"{p.tokens:,.1f}", *rates, n)


def _equal_row(c: EqualTokens) -> tuple[str, ...]:
    curve = "natural length and votes" if c.curve == "natural" else inside(c.curve)
    found = (_accuracies(c), _verdict(c), p_value(c.p_value), count(c.n))
    return (c.benchmark, c.convention, _models(c), curve, count(c.tokens), *found)


def _models(c: Comparison | EqualTokens) -> str:
    return f"{label(c.before)} → {label(c.after)}"


def _accuracies(c: Comparison | EqualTokens) -> str:
    return f"{percent(c.accuracy_before, 1)} → {percent(c.accuracy_after, 1)}"


def _difference(c: Comparison | EqualTokens) -> str:
    return f"{points(c.difference, 1)} {interval(c.low, c.high, 1)}"


def _verdict(c: Comparison | EqualTokens) -> str:
    return _difference(c) + ("" if c.significant else ", not significant")


def _comparison_row(c: Comparison) -> tuple[str, ...]:
    budget = count(c.budget) + (" (natural length)" if c.curve == "natural" else "")
    tokens = f"{c.tokens_before:,.0f} → {c.tokens_after:,.0f}"
    found = (_accuracies(c), tokens, _verdict(c), p_value(c.p_value), count(c.n))
    return (c.benchmark, c.convention, _models(c), budget, *found)


def _vote_row(v: VotePoint) -> tuple[str, ...]:
    majority = f"{percent(v.accuracy, 1)} {interval(v.low, v.high, 1)}"
    passed = f"{percent(v.passed, 1)} {interval(v.passed_low, v.passed_high, 1)}"
    return (label(v.model), str(v.k), majority, passed, f"{v.tokens:,.1f}", count(v.n), f"{v.answers / v.n:.3g}")


def _ablation_row(c: Comparison) -> tuple[str, ...]:
    return (question(c), _models(c), _difference(c), p_value(c.p_value), count(c.n), finding(c))


def _groups(grouping: Grouping, results: Results) -> Iterator[str]:
    rows = []
    for group in grouping.groups:
        rates = {rate.model: rate for rate in group.rates}
        cells = (
            f"{percent(r.accuracy, 1)} {interval(r.low, r.high)} (n = {count(r.n)})" if (r := rates.get(model)) else "–"
            for model in results.models
        )
        rows.append((group.name, *cells))
    yield from grid((inside(grouping.by), *(escaped(label(model)) for model in results.models)), rows)
    if grouping.left_out:
        yield f"\n{count(grouping.left_out)} more with fewer problems are left out."


def _lengths(histogram: Histogram) -> Iterator[str]:
    sides = [(m.model, name, side) for m in histogram.models for name, side in (("right", m.right), ("wrong", m.wrong))]
    yield from grid(LENGTH_HEAD, (_length_row(*each) for each in sides))


def _length_row(model: str, name: str, side: Side) -> tuple[str, ...]:
    if side.median is None or side.p10 is None or side.p90 is None:
        return (label(model), name, "0", "–", "–", "0")
    span = f"{count(side.p10)} to {count(side.p90)}"
    return (label(model), name, count(side.answers), count(side.median), span, count(sum(side.cut)))


def _paper(paper: PaperTable) -> Iterator[str]:
    head = (cell for benchmark in paper.benchmarks for cell in (f"{benchmark} accuracy", f"{benchmark} average tokens"))
    rows = (
        (f"{row.model}{'' if row.ours else ' (paper)'}", *(text for cell in row.cells for text in _paper_cell(cell)))
        for row in paper.rows
    )
    yield from grid(("model", *head), rows)
    yield f"\nThe paper's rows: {escaped(SOURCE)}. All at natural length."


def _paper_cell(cell: Reference | Point | None) -> tuple[str, str]:
    if cell is None:
        return ("–", "–")
    return (f"{percent(cell.accuracy, 1)} {interval(cell.low, cell.high, 1)}", count(cell.tokens))


def _stage_row(m: Manifest) -> tuple[str, ...]:
    rejected = ", ".join(f"{reason} {count(n)}" for reason, n in sorted(m.rejected.items(), key=lambda item: -item[1]))
    actors = ", ".join(f"{n} × {name}" for name, n in m.ray_actors.items())
    requests = (count(m.requests), count(m.stored_replies), f"{count(m.prompt_tokens)} / {count(m.completion_tokens)}")
    cost = (dollars(m.cost_usd), duration(m.seconds))
    return (m.stage, count(m.rows_in), count(m.rows_out), rejected, *requests, *cost, actors)


def _curve_row(c: Curve) -> tuple[str, ...]:
    losses = (f"{c.first_loss:.3f}", f"{c.last_loss:.3f}")
    return (label(c.stage), count(c.total_steps), *losses, count(c.tokens), duration(c.seconds))
