"""The whole report as one value, before anything is drawn.

In: the config and the tables of a run. Out: `Summary`, which is also what `report.json` holds.
"""

from dataclasses import dataclass

from pipeline.config import Config
from pipeline.report import samples
from pipeline.report.conditions import Conditions, conditions
from pipeline.report.curves import Curve, curves
from pipeline.report.headline import Headline, headline
from pipeline.report.results import Results, failed_requests, results, tally
from pipeline.report.samples import Sample
from pipeline.report.tables import RunTables
from pipeline.stage import Manifest


@dataclass(frozen=True)
class Summary:
    """Everything the report says."""

    title: str
    notes: list[str]
    headline: Headline
    results: Results
    stages: list[Manifest]
    curves: list[Curve]
    samples: list[Sample]
    conditions: Conditions
    scores: int


def summarize(config: Config, tables: RunTables) -> Summary:
    """Read a run and count it. The stage `evaluate` must be complete; the others may be absent."""
    manifests = tables.manifests()
    failed, requests = failed_requests(tables.generations())
    tallies = tally(tables.scores(), failed)
    found = results(tallies, requests, config.evaluate)
    chosen = samples.choose(tallies, found, config.report.samples)
    return Summary(
        title=config.report.title,
        notes=list(config.report.notes),
        headline=headline(found, held_out={"curate", "train"} <= manifests.keys()),
        results=found,
        stages=list(manifests.values()),
        curves=curves(tables.steps()),
        samples=samples.collect(chosen, found, tables.generations, tables.scores),
        conditions=conditions(config, manifests),
        scores=manifests["evaluate"].tables.get("scores", sum(t.answers.total() for t in tallies.values())),
    )
