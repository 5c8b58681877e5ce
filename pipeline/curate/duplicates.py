"""Which of equal and of nearly equal problems stays.

In: for each problem a `FINGERPRINT` row, made where the problem is read. Out: for each problem the one that stays in its
place. The result depends on the set of problems alone, not on their order or partitioning: of the problems that near
pairs connect the preferred one stays: the one with the longest solution, then the shortest text, then a digest of the row.

Near: the Jaccard similarity of the sets of 3-word runs, estimated by MinHash (Broder 1997; signatures by rensa), with
candidates from banding. Numbers count: by default a problem with other numbers or another answer is another problem. Of equal
problems with different answers one stays, and the detail says so.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rensa import RMinHash

from pipeline.curate.words import MIX, NUMBER_BIT, Hashes, WordTable, hash64
from pipeline.grading import same_at_sight, spelling_key
from pipeline.records import Problem

SHINGLE_WORDS = 3
PERMUTATIONS = 128
"""The estimate's standard deviation is 0.04 at a similarity of 0.7."""
BANDS = 32
"""Of 4 rows: a pair of similarity 0.7 is missed once in 6,000 times, one of 0.6 once in 80."""
SEED = 42
MOST_KINDS = 20
"""Unlike problems told apart in a bucket. More share boilerplate there, not their question."""
COMPARED_AT_ONCE = 1 << 15

FINGERPRINT = pa.schema(
    [
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("text", pa.uint64(), nullable=False),
        pa.field("givens", pa.uint64(), nullable=False),
        pa.field("solution_chars", pa.int64(), nullable=False),
        pa.field("problem_chars", pa.int64(), nullable=False),
        pa.field("row", pa.uint64(), nullable=False),
        pa.field("signature", pa.binary(4 * PERMUTATIONS), nullable=False),
    ]
)
"""What problems are compared by: hashes of all words and of the numbers and the answer, what is preferred, MinHash."""
FATE = pa.schema([pa.field("reason", pa.string()), pa.field("detail", pa.string())])
"""Why a problem goes; null where it stays."""

Indices = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]


def fingerprints(problems: Sequence[Problem], words: WordTable) -> pa.Table:
    """The fingerprints of problems (`words` are theirs), a row each."""
    texts = np.array([hash64(words.row(index).tobytes()) for index in range(len(words))], np.uint64)
    columns = [
        pa.array([problem.problem_id for problem in problems], pa.string()),
        pa.array([problem.answer for problem in problems], pa.string()),
        pa.array(texts),
        pa.array(_numbers(words) ^ np.array([hash64(spelling_key(p.answer)) for p in problems], np.uint64)),
        pa.array([len(problem.solution or "") for problem in problems], pa.int64()),
        pa.array([len(problem.problem) for problem in problems], pa.int64()),
        pa.array([hash64(repr(problem)) for problem in problems], pa.uint64()),
        _signatures(words, texts),
    ]
    return pa.table(columns, schema=FINGERPRINT)


def _numbers(words: WordTable) -> Hashes:
    """A hash of the numbers of each row, in any order."""
    numbers = np.where(words.hashes & NUMBER_BIT, words.ngrams(1).hashes, np.uint64(0))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(numbers)])
    found: Hashes = sums[words.offsets[1:]] - sums[words.offsets[:-1]]
    return found


def _signatures(words: WordTable, texts: Hashes) -> pa.Array:
    """MinHash signatures; those of texts too short for a run are near to none but their own."""
    shingles = words.ngrams(SHINGLE_WORDS)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.offsets.astype(np.uint64), PERMUTATIONS, SEED
    )
    signatures = np.fromiter(chain.from_iterable(matrix.to_rows()), np.uint32, len(words) * PERMUTATIONS)
    short = np.diff(shingles.offsets) == 0
    signatures.reshape(-1, PERMUTATIONS)[short] = np.tile(texts[short, None].view(np.uint32), PERMUTATIONS // 2)
    kind = FINGERPRINT.field("signature").type
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(words), [None, pa.py_buffer(signatures.tobytes())])


def fates(fingerprints: pa.Table, threshold: float | None, *, same_givens: bool) -> pa.Table:
    """For each row of a table of fingerprints why it goes (`FATE`), naming the problem that stays in its place."""
    equal, near = survivors(fingerprints, threshold, same_givens=same_givens)
    own = np.arange(len(near))
    gone = np.flatnonzero(near != own)
    ids = fingerprints["problem_id"].take(near[gone]).to_pylist()
    answers = zip(*(fingerprints["answer"].take(rows).to_pylist() for rows in (gone, near[gone])), strict=True)
    details = [
        f"of {stays}" if same_at_sight(one, other) else f"of {stays}, whose answer is {other[:80]} and not {one[:80]}"
        for stays, (one, other) in zip(ids, answers, strict=True)
    ]
    reasons = np.where(near[gone] == equal[gone], "duplicate", "near_duplicate")
    places = np.full(len(near), -1)
    places[gone] = np.arange(len(gone))
    found = pa.table([pa.array(reasons, pa.string()), pa.array(details, pa.string())], schema=FATE)
    return found.take(pa.array(places, mask=places < 0))


def survivors(fingerprints: pa.Table, threshold: float | None, *, same_givens: bool) -> tuple[Indices, Indices]:
    """For each row of a table of fingerprints the row that stays for it: itself, or the one it is a duplicate of.

    Two arrays: by equal words alone, and by near ones as well. A `threshold` of None: equal words alone.
    """
    columns = {
        name: fingerprints[name].to_numpy() for name in ("text", "givens", "solution_chars", "problem_chars", "row")
    }
    order = np.lexsort([columns["row"], columns["problem_chars"], -columns["solution_chars"]])
    first = np.arange(len(order))
    ids = np.array([int(identity, 16) for identity in fingerprints["problem_id"].to_pylist()], np.uint64)
    for keys in (ids, columns["text"] * MIX[0] ^ columns["givens"]):
        _, head, inverse = np.unique(keys[order], return_index=True, return_inverse=True)
        _connect(first, np.arange(len(order)), head[inverse])
    equal = np.empty_like(order)
    equal[order] = order[first]
    if threshold is None or not len(order):
        return equal, equal
    stay = order[np.unique(first)]
    signature = fingerprints["signature"].combine_chunks()
    signatures = np.frombuffer(signature.buffers()[1], np.uint32)[signature.offset * PERMUTATIONS :]
    signatures = signatures[: len(order) * PERMUTATIONS].reshape(-1, PERMUTATIONS)
    apart = columns["givens"] if same_givens else np.zeros(len(order), np.uint64)
    near = equal.copy()
    near[stay] = stay[_clusters(signatures, stay, apart[stay], threshold)]
    return equal, near[equal]


def _clusters(signatures: Signatures, stay: Indices, apart: npt.NDArray[np.uint64], threshold: float) -> Indices:
    """For each position in `stay` the first one of its cluster: what near pairs connect, directly or by others.

    Only what agrees in `apart` is compared. In a bucket each is compared with the first one; what is not near to it
    makes a bucket of its own, at most MOST_KINDS times.
    """
    first = np.arange(len(stay))
    size = PERMUTATIONS // BANDS
    for band in range(BANDS):
        parts = np.ascontiguousarray(signatures[stay, band * size : (band + 1) * size]).view(np.uint64)
        keys = (parts * MIX[: parts.shape[1]]).sum(axis=1, dtype=np.uint64) ^ apart
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for _ in range(MOST_KINDS):
            heads = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
            head = np.repeat(order[heads], np.diff(heads, append=len(keys)))
            other = (order != head) & (first[order] != first[head])
            near = np.zeros(len(order), bool)
            near[other] = _are_near(signatures, stay[order[other]], stay[head[other]], threshold)
            _connect(first, order[near], head[near])
            left = other & ~near
            if not left.any():
                break
            order, keys = order[left], keys[left]
    return first


def _are_near(signatures: Signatures, ones: Indices, others: Indices, threshold: float) -> npt.NDArray[np.bool_]:
    found = np.empty(len(ones), bool)
    for start in range(0, len(ones), COMPARED_AT_ONCE):
        part = slice(start, start + COMPARED_AT_ONCE)
        found[part] = (signatures[ones[part]] == signatures[others[part]]).mean(axis=1) >= threshold
    return found


def _connect(first: Indices, ones: Indices, others: Indices) -> None:
    """Make pairs and all that is connected with them share the smallest `first`, in place (Shiloach and Vishkin 1982)."""
    while len(ones):
        least = np.minimum(first[ones], first[others])
        np.minimum.at(first, first[ones], least)
        np.minimum.at(first, first[others], least)
        while (first != first[first]).any():
            first[:] = first[first]
        apart = first[ones] != first[others]
        ones, others = ones[apart], others[apart]
