"""The paper's results: reference points on the chart, and our models in the form of its Table 1.

In: `Results`. Out: `Reference`s, and the rows of a table `model | accuracy, average tokens` for each of its benchmarks
that was evaluated. Only answers of natural length belong there: nothing in the paper was cut at a budget.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline import statistics
from pipeline.report.formats import label
from pipeline.report.results import Point, Results

SOURCE = "O1 Replication Journey, Part 2 (arXiv 2411.16489), Table 1"


@dataclass(frozen=True)
class Reference:
    """A result of the paper: its accuracy as a share of `n` problems, its average output tokens.

    The paper gives no interval; `low` and `high` are Wilson's, as everywhere in the report.
    """

    model: str
    benchmark: str
    accuracy: float
    low: float
    high: float
    n: int
    tokens: int


def _reference(model: str, benchmark: str, accuracy: float, n: int, tokens: int) -> Reference:
    interval = statistics.wilson(accuracy * n, n)
    return Reference(model, benchmark, accuracy, interval.low, interval.high, n, tokens)


TABLE_1 = (
    _reference("o1-preview", "aime2024", 12 / 30, 30, 9083),
    _reference("o1-preview", "math500", 0.855, 500, 1501),
    _reference("o1-mini", "aime2024", 21 / 30, 30, 9903),
    _reference("o1-mini", "math500", 0.900, 500, 944),
    _reference("Paper, 72B", "aime2024", 13 / 30, 30, 8016),
    _reference("Paper, 72B", "math500", 0.872, 500, 2235),
)
"""Its Table 1. "Paper, 72B" is its own model, Qwen2.5-Math-72B after both stages."""
BENCHMARKS = tuple(dict.fromkeys(reference.benchmark for reference in TABLE_1))


def references(benchmarks: Iterable[str]) -> list[Reference]:
    """The paper's results on these benchmarks, known by their names in the catalogue."""
    wanted = set(benchmarks)
    return [reference for reference in TABLE_1 if reference.benchmark in wanted]


@dataclass(frozen=True)
class Row:
    """A line of the table: a cell for each benchmark, None where the model has no result. `ours`: of this run."""

    model: str
    ours: bool
    cells: list[Reference | Point | None]


@dataclass(frozen=True)
class PaperTable:
    """The table in the paper's form."""

    benchmarks: list[str]
    rows: list[Row]


def paper_table(results: Results, convention: str) -> PaperTable | None:
    """The paper's rows, then ours; None where none of its benchmarks was evaluated."""
    benchmarks = [name for name in BENCHMARKS if name in results.benchmarks]
    if not benchmarks:
        return None
    ours = [point for name in benchmarks for point in results.natural(name, convention)]
    return PaperTable(benchmarks, [*_rows(TABLE_1, benchmarks, ours=False), *_rows(ours, benchmarks, ours=True)])


def _rows(found: Sequence[Reference | Point], benchmarks: Sequence[str], *, ours: bool) -> Iterable[Row]:
    cells = {(cell.model, cell.benchmark): cell for cell in found}
    for model in dict.fromkeys(cell.model for cell in found):
        yield Row(label(model), ours, [cells.get((model, benchmark)) for benchmark in benchmarks])
