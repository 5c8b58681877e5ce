"""How long the answers of natural length are: right ones and wrong ones apart.

In: `Results` and `Tallies`. Out: a `Histogram` for each benchmark and convention, its bins shared by all models so
that they can be laid one above the other. What was truncated is counted apart: it would have been longer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import histograms
from pipeline.records import Convention
from pipeline.report.results import Results
from pipeline.report.tallies import Key, Length, Tallies


@dataclass(frozen=True)
class Side:
    """The right or the wrong answers of a model, by bin: `ended` by themselves, `cut` at the largest budget.

    `p10`, `median` and `p90` are quantiles of the tokens of all of them, None where there are none.
    """

    answers: int
    ended: list[int]
    cut: list[int]
    p10: float | None
    median: float | None
    p90: float | None


@dataclass(frozen=True)
class ModelLengths:
    """One model's answers."""

    model: str
    right: Side
    wrong: Side


@dataclass(frozen=True)
class Histogram:
    """The lengths of all models. `edges` are in tokens, one more than there are bins."""

    benchmark: str
    convention: Convention
    edges: list[float]
    logarithmic: bool
    models: list[ModelLengths]


def histograms_of(results: Results, tallies: Tallies) -> list[Histogram]:
    """A histogram wherever there are answers of natural length."""
    return [
        _histogram(benchmark, convention, found)
        for benchmark in results.benchmarks
        for convention in results.conventions
        if (found := _lengths(results, tallies, benchmark, convention))
    ]


def _lengths(results: Results, tallies: Tallies, benchmark: str, convention: Convention) -> dict[str, list[Length]]:
    """Each model's answers; an empty one counts as a token, which a logarithmic axis has."""
    return {
        p.model: [length._replace(tokens=max(1, length.tokens)) for length in tallies[Key.of(p)].lengths.elements()]
        for p in results.natural(benchmark, convention)
    }


def _histogram(benchmark: str, convention: Convention, found: dict[str, list[Length]]) -> Histogram:
    tokens = [length.tokens for lengths in found.values() for length in lengths]
    bins = histograms.bins(min(tokens), max(tokens))
    models = [
        ModelLengths(
            model,
            right=_side((length for length in lengths if length.correct), bins),
            wrong=_side((length for length in lengths if not length.correct), bins),
        )
        for model, lengths in found.items()
    ]
    return Histogram(benchmark, convention, bins.edges.tolist(), bins.logarithmic, models)


def _side(lengths: Iterable[Length], bins: histograms.Bins) -> Side:
    kept = list(lengths)
    tokens = [length.tokens for length in kept]
    p10, median, p90 = np.quantile(tokens, [0.1, 0.5, 0.9]).tolist() if tokens else (None, None, None)
    return Side(
        answers=len(kept),
        ended=_counts([length.tokens for length in kept if not length.truncated], bins),
        cut=_counts([length.tokens for length in kept if length.truncated], bins),
        p10=p10,
        median=median,
        p90=p90,
    )


def _counts(tokens: Sequence[int], bins: histograms.Bins) -> list[int]:
    return [int(n) for n in np.histogram(tokens, bins.edges)[0]]
