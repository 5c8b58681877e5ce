"""The whole report as one value, before anything is drawn.

In: the config and the tables of a run. Out: `Summary`; `report.json` holds it without the answers to browse.
"""

from dataclasses import dataclass

from pipeline.config import Config
from pipeline.report import answers, browse, samples
from pipeline.report.browse import Browse
from pipeline.report.conditions import Conditions, conditions
from pipeline.report.curves import Curve, curves
from pipeline.report.equal_tokens import EqualTokens, equal_tokens
from pipeline.report.groups import Grouping, groupings
from pipeline.report.headline import Headline, headline
from pipeline.report.lengths import Histogram, histograms_of
from pipeline.report.results import Results, results
from pipeline.report.samples import Sample
from pipeline.report.tables import RunTables
from pipeline.report.tallies import asked, tally
from pipeline.report.votes import vote_point, voting
from pipeline.stage import Manifest


@dataclass(frozen=True)
class Summary:
    """Everything the report says."""

    title: str
    notes: list[str]
    headline: Headline
    results: Results
    equal_tokens: list[EqualTokens]
    groupings: list[Grouping]
    lengths: list[Histogram]
    stages: list[Manifest]
    curves: list[Curve]
    samples: list[Sample]
    browse: Browse
    conditions: Conditions
    scores: int


def summarize(config: Config, tables: RunTables) -> Summary:
    """Read a run and count it. The stage `evaluate` must be complete; the others may be absent."""
    manifests = tables.manifests()
    asked_for = asked(tables.generations())
    tallies = tally(tables.scores(), asked_for.failed)
    votes = voting(tables.votes())
    found = results(tallies, asked_for.requests, list(map(vote_point, votes)), config.evaluate)
    shown = samples.choose(tallies, found, config.report.samples)
    browsed = browse.choose(asked_for.problems, found, config.report.browse)
    graded = (score for score in tables.scores() if score.generation_id not in asked_for.failed)
    entries = answers.collect(dict.fromkeys([*shown, *browsed]), found, tallies, graded, tables.generations())
    return Summary(
        title=config.report.title,
        notes=list(config.report.notes),
        headline=headline(found, held_out={"curate", "train"} <= manifests.keys()),
        results=found,
        equal_tokens=equal_tokens(found, tallies, votes),
        groupings=groupings(found, tallies, asked_for.problems),
        lengths=histograms_of(found, tallies),
        stages=list(manifests.values()),
        curves=curves(tables.steps()),
        samples=[Sample(change, entries[problem]) for problem, change in shown.items()],
        browse=Browse(len(asked_for.problems), [entries[problem] for problem in browsed if problem in entries]),
        conditions=conditions(config, manifests),
        scores=manifests["evaluate"].tables.get("scores", sum(t.answers.total() for t in tallies.values())),
    )
