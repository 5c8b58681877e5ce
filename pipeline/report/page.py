"""The report as one HTML page, which opens offline and asks nothing of any network.

In: `Summary`. Out: the page's text. `web/` holds its parts: a template for each section, a style sheet for each kind of
content, a script for each chart; `page.*` frames them. Without scripts all tables are there. Text from models is hostile
until escaped: Jinja escapes what is written into the page, `_json` what the script reads, and the page's own policy lets
no other script run.
"""

import base64
import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipeline import figures
from pipeline.records import Convention
from pipeline.report import formats, pareto
from pipeline.report.ablation import ablation, finding, question
from pipeline.report.basis import SIGNIFICANCE, basis
from pipeline.report.equal_tokens import EqualTokens
from pipeline.report.reference import SOURCE, paper_table, references
from pipeline.report.results import Comparison, Point, Results
from pipeline.report.summary import Summary
from pipeline.report.votes import VotePoint
from pipeline.stage import Manifest

STYLES = ("page.css", "charts.css", "tables.css", "answers.css")
SCRIPTS = ("draw.js", "accuracy.js", "lengths.js", "training.js", "browse.js", "page.js")
"""In the order in which they stand in the page, as one module: what is used comes before its use."""


def html(summary: Summary) -> str:
    """The page."""
    results = summary.results
    script = "\n".join(map(_asset, SCRIPTS))
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    fronts = _fronts(results)
    papers = {name: paper_table(results, name) for name in results.conventions}
    template = _environment().get_template("page.html.j2")
    return template.render(
        summary=summary,
        results=results,
        stages=[stage_view(stage) for stage in summary.stages],
        fronts={view: list(map(pareto.name, points)) for view, points in fronts.items()},
        paper_tables={name: table for name, table in papers.items() if table},
        ablated=any(ablation(results, *view) for view in fronts),
        references=references(results.benchmarks),
        style=Markup("\n".join(map(_asset, STYLES))),
        script=Markup(script),
        script_hash=policy,
        data=_json(_chart_data(summary, fronts)),
        totals=_totals(summary.stages),
    )


View = tuple[str, Convention]
"""A benchmark and a convention: what the reader chooses."""


def _fronts(results: Results) -> dict[View, list[Point | VotePoint]]:
    return {
        (benchmark, convention): pareto.front(
            [*results.view(benchmark, convention), *results.voted(benchmark, convention)]
        )
        for benchmark in results.benchmarks
        for convention in results.conventions
    }


def stage_view(stage: Manifest) -> dict[str, Any]:
    """A stage with its rejects as shares of what went in, the most frequent reason first."""
    reasons = sorted(stage.rejected.items(), key=lambda item: (-item[1], item[0]))
    whole = max(stage.rows_in, 1)
    rejects = [{"reason": reason, "count": n, "share": n / whole} for reason, n in reasons]
    return {"manifest": stage, "rejects": rejects, "kept": stage.rows_out / whole}


def _totals(stages: Sequence[Manifest]) -> dict[str, float]:
    """What the whole run has used."""
    totals: Counter[str] = Counter()
    for stage in stages:
        for name in ("requests", "stored_replies", "prompt_tokens", "completion_tokens", "cost_usd", "seconds"):
            totals[name] += getattr(stage, name)
    return dict(totals)


def _chart_data(summary: Summary, fronts: dict[View, list[Point | VotePoint]]) -> dict[str, Any]:
    """What the scripts read. Every point has a `curve`: votes and the paper's points have one of their own."""
    results = summary.results
    shown = [point for view in fronts for point in results.view(*view)]
    votes = [{**dataclasses.asdict(vote), "curve": "votes"} for vote in results.votes]
    known = [{**dataclasses.asdict(each), "curve": "reference"} for each in references(results.benchmarks)]
    return {
        "models": [{"id": model, "label": formats.label(model)} for model in results.models],
        "benchmarks": len(results.benchmarks),
        "points": [*map(dataclasses.asdict, shown), *votes, *known],
        "fronts": [
            {
                "benchmark": benchmark,
                "convention": convention,
                "points": [{"tokens": point.tokens, "accuracy": point.accuracy} for point in points],
            }
            for (benchmark, convention), points in fronts.items()
        ],
        "lengths": list(map(dataclasses.asdict, summary.lengths)),
        "curves": [{**dataclasses.asdict(curve), "label": formats.label(curve.stage)} for curve in summary.curves],
        "entries": list(map(dataclasses.asdict, summary.browse.entries)),
    }


def _json(value: Any) -> Markup:
    """JSON that may stand inside a `<script>`: no character of it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


C = TypeVar("C", Comparison, EqualTokens)


@dataclass(frozen=True)
class DifferenceAxis:
    """An axis for differences that holds zero."""

    low: float
    high: float

    def place(self, difference: float) -> float:
        """Where a difference stands, in percent of the axis."""
        return 100 * (difference - self.low) / (self.high - self.low)


def difference_axis(comparisons: Sequence[Comparison | EqualTokens]) -> DifferenceAxis:
    """The axis that holds all intervals, with a margin: whole five points at both ends."""
    low, high = min(c.low for c in comparisons), max(c.high for c in comparisons)
    return DifferenceAxis(math.floor(min(low, -0.01) * 20) / 20, math.ceil(max(high, 0.01) * 20) / 20)


def by_pair(comparisons: Sequence[C]) -> list[tuple[tuple[str, str], list[C]]]:
    """The comparisons of each pair of models together."""
    pairs: dict[tuple[str, str], list[C]] = {}
    for comparison in comparisons:
        pairs.setdefault((comparison.before, comparison.after), []).append(comparison)
    return list(pairs.items())


@cache
def _asset(name: str) -> str:
    return resources.files("pipeline.report").joinpath("web", name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        formats.label,
        formats.inside,
        figures.percent,
        formats.interval,
        formats.points,
        formats.p_value,
        figures.count,
        figures.dollars,
        figures.duration,
    ):
        environment.filters[function.__name__] = function
    for helper in (difference_axis, by_pair, basis, ablation, question, finding):
        environment.globals[helper.__name__] = helper
    environment.globals["reference_source"] = SOURCE
    environment.globals["significance"] = SIGNIFICANCE
    return environment
