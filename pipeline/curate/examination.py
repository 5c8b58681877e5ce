"""A batch of rows examined by every rule that needs no other row, and made ready to be compared with the others.

In: rows of the sources. Out: a table of `EXAMINED`: of each row the problem that it is or the reason why it is dropped,
the benchmark item it resembles, and the fingerprint by which `duplicates` compares it.
"""

from collections.abc import Sequence
from itertools import count

import pyarrow as pa

from pipeline.config import Curate, Source
from pipeline.curate.contamination import Benchmarks
from pipeline.curate.duplicates import FINGERPRINT, fingerprints
from pipeline.curate.filters import Filters
from pipeline.curate.words import WordTable, question
from pipeline.records import BenchmarkMatch, Problem, Rejected, arrow_schema, to_json
from pipeline.sources import RawRow

EXAMINED = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("problem", pa.struct(list(arrow_schema(Problem)))),
        pa.field("rejected", pa.struct(list(arrow_schema(Rejected)))),
        pa.field("match", pa.struct(list(arrow_schema(BenchmarkMatch)))),
        *(field.with_nullable(True) for field in FINGERPRINT),
    ]
)
"""Exactly one of `problem` and `rejected` is set; the fingerprint is null where there is no problem."""


class Examiner:
    """The rules of `curate`. Made once for many batches: it holds the benchmarks and a grader."""

    def __init__(self, settings: Curate, benchmarks: Sequence[Problem]) -> None:
        self._settings = settings
        self._filters = Filters(settings)
        self._benchmarks = Benchmarks(benchmarks)

    def examine(self, rows: Sequence[RawRow], sources: Sequence[Source], origins: Sequence[str]) -> pa.Table:
        """The outcomes of rows in their order, the source and the origin of each given."""
        found = [self._filters.examine(*each) for each in zip(rows, sources, origins, strict=True)]
        problems = [item for item in found if isinstance(item, Problem)]
        places = count()
        place_of = [next(places) if isinstance(item, Problem) else None for item in found]
        words = WordTable.of(question(problem.problem) for problem in problems)
        matches = self._benchmarks.matches(problems, words)
        matched = [None if place is None else matches[place] for place in place_of]
        outcomes = [self._unless_contaminated(*each) for each in zip(rows, found, matched, strict=True)]
        kept = [place if isinstance(item, Problem) else None for place, item in zip(place_of, outcomes, strict=True)]
        prints = fingerprints(problems, words).take(pa.array(kept, pa.int64()))
        columns = {
            "source": [source.name for source in sources],
            "problem": [vars(item) if isinstance(item, Problem) else None for item in outcomes],
            "rejected": [vars(item) if isinstance(item, Rejected) else None for item in outcomes],
            "match": [match and vars(match) for match in matched],
        }
        made = [pa.array(column, EXAMINED.field(name).type) for name, column in columns.items()]
        return pa.table([*made, *prints.columns], schema=EXAMINED)

    def _unless_contaminated(
        self, row: RawRow, item: Problem | Rejected, match: BenchmarkMatch | None
    ) -> Problem | Rejected:
        if match is None or (match.kind == "template_match" and not self._settings.drop_templates):
            return item
        detail = f"{match.item}: {match.covered:.0%} of its words, {match.longest} of them telling and in a row"
        return Rejected(row.place, "curate", match.kind, detail, to_json(item))
