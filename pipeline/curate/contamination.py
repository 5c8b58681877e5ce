"""Problems that are in a benchmark already: copies, copies inside of longer texts, copies with a sentence changed.

In: the problems of the benchmarks, then batches of problems. Out: for each problem the benchmark item it matches most,
as a `BenchmarkMatch`, or None. A verdict looks at one problem alone, so it does not depend on the rest of the set.

A copy shares runs of 4 words with its item (`words.question`: without what is said about the answer's form). `covered`
is the share of the item's words in runs that the problem has too, `longest` the longest stretch of telling runs, those
that no other item has: "what is the smallest positive integer such that" says nothing. What is equal to an item but for
its numbers is no copy, but a `template_match`.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.curate.words import MASK, MINUS_HASH, NUMBER_BIT, SIGN_HASHES, Hashes, WordTable, question
from pipeline.records import BenchmarkMatch, MatchKind, Problem

RUN_WORDS, SHORTEST_WORDS = 4, 3
COVERED_ALONE, COVERED, COVERED_LONGEST, LONGEST = 0.8, 0.45, 8, 15
"""A copy has 0.8 of an item's words; or 0.45 of them, and 8 telling ones in a row; or 15 telling words in a row. Chosen
so that 95% of copies with a changed sentence are found: benchmarks/curate_decontamination.py."""
SHORT_WORDS = 14
"""A shorter item counts as covered only where it stands in the problem as it is, and does not go on there with a sign:
most of "What is 3 + 4 - 1?" is in any sum."""
COPY_SHARE, COPY_RUNS = 0.3, 9
"""An item is compared in full where so large a share of its runs, or so many of them, are in the problem."""
CANDIDATES = 5

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Item:
    """A benchmark problem and its words."""

    problem: Problem
    words: Hashes


class Benchmarks:
    """The problems of benchmarks, ready to be looked for. Those of fewer than 3 words are found as they are only."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Of equal texts the first counts."""
        first: dict[str, Problem] = {}
        for problem in problems:
            first.setdefault(question(problem.problem), problem)
        table = WordTable.of(first)
        items = [_Item(problem, table.row(row)) for row, problem in enumerate(first.values())]
        self._by_template: dict[bytes, list[_Item]] = {}
        for item in items:
            if len(item.words):
                self._by_template.setdefault(_form(item.words), []).append(item)
        self._copies = (
            _Copies(RUN_WORDS, [item for item in items if len(item.words) >= RUN_WORDS]),
            _Copies(SHORTEST_WORDS, [item for item in items if len(item.words) == SHORTEST_WORDS]),
        )

    def matches(self, problems: Sequence[Problem], words: WordTable) -> list[BenchmarkMatch | None]:
        """The match of each problem; `words` are those of their `question`s."""
        found: list[BenchmarkMatch | None] = [self._by_form(problems[row], words, row) for row in range(len(problems))]
        alike = {row for row, match in enumerate(found) if match}
        for copies in self._copies:
            for row, match in copies.find(problems, words, alike):
                found[row] = max(filter(None, (found[row], match)), key=_strength)
        return found

    def _by_form(self, problem: Problem, words: WordTable, row: int) -> BenchmarkMatch | None:
        """The item that a problem is, or else differs from in its numbers only."""
        items = self._by_template.get(_form(words.row(row)), ())
        for item in items:
            if np.array_equal(item.words, words.row(row)):
                return _match(problem, item, "contaminated", 1.0, len(item.words))
        return _match(problem, items[0], "template_match", 0.0, 0) if items else None


def _form(words: Hashes) -> bytes:
    """What is equal for texts that differ in their numbers only, signs of numbers among them."""
    number = words & NUMBER_BIT == NUMBER_BIT
    negative = np.append(number[1:], False) & (words == MINUS_HASH)
    return bytes(np.where(number, MASK, words)[~negative].tobytes())


def _match(problem: Problem, item: _Item, kind: MatchKind, covered: float, longest: int) -> BenchmarkMatch:
    return BenchmarkMatch(
        problem_id=problem.problem_id,
        item=f"{item.problem.source}/{item.problem.problem_id}",
        kind=kind,
        covered=round(covered, 3),
        longest=longest,
        problem=problem.problem,
        benchmark_problem=item.problem.problem,
    )


def _strength(match: BenchmarkMatch) -> tuple[float, int, str]:
    return match.covered, match.longest, match.item


class _Copies:
    """Finds items in texts by their runs of `size` words: 4, or 3 for items that have no more."""

    def __init__(self, size: int, items: Sequence[_Item]) -> None:
        self._size, self._items = size, items
        self._runs = [_runs(item.words, size) for item in items]
        self._index = _Index(self._runs)
        self._telling = [self._index.is_alone(runs) for runs in self._runs]

    def find(
        self, problems: Sequence[Problem], words: WordTable, known: Container[int]
    ) -> Iterator[tuple[int, BenchmarkMatch]]:
        """The copies among problems, by their rows; the `known` ones are not looked at."""
        runs = words.ngrams(self._size)
        for row, place in self._index.candidates(runs):
            if row in known:
                continue
            item = self._items[place]
            there = np.isin(self._runs[place], runs.row(row))
            covered = float(self._words_in(there).mean())
            if len(item.words) < SHORT_WORDS and not _stands_in(words.row(row), item.words):
                covered = min(covered, COVERED)
            longest = self._longest(there, self._telling[place])
            if covered >= COVERED_ALONE or longest >= LONGEST or (covered >= COVERED and longest >= COVERED_LONGEST):
                yield row, _match(problems[row], item, "contaminated", covered, longest)

    def _words_in(self, runs: Flags) -> Flags:
        """Which words of an item stand in one of the marked runs."""
        found = np.zeros(len(runs) + self._size - 1, bool)
        for ahead in range(self._size):
            found[ahead : ahead + len(runs)] |= runs
        return found

    def _longest(self, runs: Flags, telling: Flags) -> int:
        """Words in the longest stretch of marked runs, counting only the telling ones."""
        most = max((int(telling[start:end].sum()) for start, end in _stretches(runs)), default=0)
        return most + self._size - 1 if most else 0


def _runs(words: Hashes, size: int) -> Hashes:
    return WordTable(words, np.array([0, len(words)])).ngrams(size).hashes


class _Index:
    """The runs of items: which items have a run."""

    def __init__(self, runs: Sequence[Hashes]) -> None:
        distinct = [np.unique(each) for each in runs]
        self._sizes = np.array([len(each) for each in distinct], np.int64)
        flat = np.concatenate([*distinct, np.empty(0, np.uint64)])
        order = np.argsort(flat, kind="stable")
        self._keys, starts = np.unique(flat[order], return_index=True)
        self._starts = np.append(starts, len(flat))
        self._owners = np.repeat(np.arange(len(distinct)), self._sizes)[order]

    def is_alone(self, runs: Hashes) -> Flags:
        """Whether one item alone has a run, for runs of the items."""
        at = np.searchsorted(self._keys, runs)
        alone: Flags = self._starts[at + 1] - self._starts[at] == 1
        return alone

    def candidates(self, texts: WordTable) -> Iterator[tuple[int, int]]:
        """Rows and the items that share enough with them, the most first; of a row at most CANDIDATES."""
        if not len(self._keys):
            return
        at = np.searchsorted(self._keys, texts.hashes)
        hits = np.flatnonzero(self._keys[np.minimum(at, len(self._keys) - 1)] == texts.hashes)
        rows = np.searchsorted(texts.offsets, hits, side="right") - 1
        rows, keys = np.divmod(np.unique(rows * len(self._keys) + at[hits]), len(self._keys))
        lengths = np.diff(self._starts)[keys]
        before = np.cumsum(lengths) - lengths
        owners = self._owners[np.arange(lengths.sum()) + np.repeat(self._starts[keys] - before, lengths)]
        both, shared = np.unique(np.repeat(rows, lengths) * len(self._sizes) + owners, return_counts=True)
        rows, owners = np.divmod(both, len(self._sizes))
        share = shared / self._sizes[owners]
        enough = np.flatnonzero((share >= COPY_SHARE) | (shared >= COPY_RUNS))
        best_first = enough[np.lexsort([owners[enough], -share[enough], rows[enough]])]
        taken: Counter[int] = Counter()
        for row, owner in zip(rows[best_first].tolist(), owners[best_first].tolist(), strict=True):
            taken[row] += 1
            if taken[row] <= CANDIDATES:
                yield row, owner


def _stands_in(text: Hashes, item: Hashes) -> bool:
    """Whether the words of an item stand in a text in one piece, no sign of calculation after them."""
    places = np.flatnonzero(text[: max(0, len(text) - len(item) + 1)] == item[0]).tolist()
    ends = [place + len(item) for place in places if np.array_equal(text[place : place + len(item)], item)]
    return any(end == len(text) or int(text[end]) not in SIGN_HASHES for end in ends)


def _stretches(flags: Flags) -> Iterator[tuple[int, int]]:
    """The unbroken stretches of set flags, from and to."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
