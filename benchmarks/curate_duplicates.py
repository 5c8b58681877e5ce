"""Near duplicates among 200,000 problems: our Ray Data job beside rensa and datasketch called bare, in one run.

    python benchmarks/curate_duplicates.py ../shared/data/problems [--rows 200000] [--only ours]

Real problems, each followed by copies with one word in 25 changed. All three compare sets of 3-word runs with 128
permutations and a threshold of 0.7; the bare libraries take the words of `str.split`, which is quick, ours those of
`words`, which see through LaTeX styling. A planted pair is found where both get the same survivor (ours), or
where the index answers the original for the copy (bare, one process, as their documentation has it). Ours is timed from
the Parquet files to the survivors, Ray's start apart. Recorded in `benchmarks/results/curate.md`.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curate.duplicates import FINGERPRINT, PERMUTATIONS, SEED, fingerprints, survivors
from pipeline.curate.words import WordTable
from pipeline.records import Problem

THRESHOLD, COPIES, BATCH, FILE_ROWS = 0.7, 3, 2048, 12_500


def real_problems(folder: Path) -> list[str]:
    """The distinct problems of all JSONL files below a folder."""
    files = sorted(folder.rglob("*.jsonl"))
    texts = (json.loads(line)["problem"] for file in files for line in file.read_bytes().splitlines())
    return list(dict.fromkeys(text for text in texts if len(text.split()) >= 8))


def vocabulary_of(texts: list[str]) -> list[str]:
    """Words to put in the place of others, the frequent ones often among them."""
    return [word for text in texts[:5_000] for word in text.split() if word.isalpha()]


def edited(text: str, vocabulary: list[str], rng: random.Random) -> str:
    """A text with one word in 25 changed, at least one."""
    words = text.split(" ")
    for place in rng.sample(range(len(words)), max(1, len(words) // 25)):
        words[place] = rng.choice(vocabulary)
    return " ".join(words)


def planted(texts: list[str], rows: int, rng: random.Random) -> list[str]:
    """Originals, then COPIES changed copies of each: the copy of row i stands `originals` further on."""
    vocabulary = vocabulary_of(texts)
    originals = rng.sample(texts, rows // (COPIES + 1))
    return originals + [edited(text, vocabulary, rng) for _ in range(COPIES) for text in originals]


def pairs(rows: int) -> Iterator[tuple[int, int]]:
    """The planted pairs: original and copy."""
    originals = rows // (COPIES + 1)
    for copy in range(originals, rows):
        yield copy % originals, copy


def runs_of(text: str) -> list[str]:
    """The 3-word runs of a text, as the bare libraries take them."""
    found = text.lower().split()
    return [" ".join(run) for run in zip(found, found[1:], found[2:], strict=False)]


def ours(folder: Path) -> tuple[float, np.ndarray]:
    """Seconds, and the survivor of each row."""
    import ray

    def prints(batch: pa.Table) -> pa.Table:
        texts = batch["text"].to_pylist()
        made = fingerprints(
            [
                Problem(f"{place:x}", text, "1", "integer", None, "s", "l", None)
                for place, text in zip(batch["place"].to_pylist(), texts, strict=True)
            ],
            WordTable.of(texts),
        )
        return made.append_column("place", batch["place"])

    started = time.monotonic()
    dataset = ray.data.read_parquet(str(folder), override_num_blocks=len(list(folder.iterdir()))).map_batches(
        prints, batch_size=BATCH, batch_format="pyarrow"
    )
    table = pa.concat_tables(ray.get(dataset.to_arrow_refs()))
    _, found = survivors(table.select(FINGERPRINT.names), THRESHOLD, same_givens=False)
    place = table["place"].to_numpy()
    survivor = np.empty_like(place)
    survivor[place] = place[found]
    return time.monotonic() - started, survivor


def bare_rensa(texts: list[str]) -> tuple[float, list[list[int]]]:
    """Seconds, and what the index answers for each row."""
    from rensa import RMinHash, RMinHashLSH

    started = time.monotonic()
    sketches = RMinHash.from_token_sets([runs_of(text) for text in texts], num_perm=PERMUTATIONS, seed=SEED)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=16)
    index.insert_many(sketches)
    answers = index.query_all(sketches)
    return time.monotonic() - started, answers


def bare_datasketch(texts: list[str]) -> tuple[float, list[list[int]]]:
    """Seconds, and what the index answers for each row."""
    from datasketch import MinHash, MinHashLSH

    started = time.monotonic()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    answers = []
    sketches = []
    for place, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([run.encode() for run in runs_of(text)])
        sketches.append(sketch)
        index.insert(place, sketch)
    answers = [index.query(sketch) for sketch in sketches]
    return time.monotonic() - started, answers


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' sets of runs."""
    first, second = set(runs_of(one)), set(runs_of(other))
    return len(first & second) / max(1, len(first | second))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", choices=["ours", "rensa", "datasketch"])
    given = parser.parse_args()
    texts = planted(real_problems(given.folder), given.rows, random.Random(0))
    near = np.array([similarity(texts[one], texts[other]) >= THRESHOLD for one, other in pairs(len(texts))])
    print(
        f"{len(texts)} problems, {len(near)} planted pairs, {near.mean():.3f} of them of similarity {THRESHOLD} or more"
    )

    def tell(name: str, seconds: float, found: list[bool]) -> None:
        hit = np.array(found)
        print(
            f"{name}: {seconds:.1f} s, {len(texts) / seconds:,.0f} rows/s, recall {hit.mean():.4f}, of the near ones {hit[near].mean():.4f}",
            flush=True,
        )

    if given.only in (None, "ours"):
        from ray_jobs import cluster

        cluster.connect()
        with tempfile.TemporaryDirectory() as folder:
            table = pa.table({"text": texts, "place": np.arange(len(texts))})
            for start in range(0, len(texts), FILE_ROWS):
                pq.write_table(table.slice(start, FILE_ROWS), Path(folder) / f"{start:08}.parquet")
            for name in ("ours, first", "ours"):
                seconds, survivor = ours(Path(folder))
                tell(name, seconds, [bool(survivor[one] == survivor[other]) for one, other in pairs(len(texts))])
    for name, bare in (("rensa", bare_rensa), ("datasketch", bare_datasketch)):
        if given.only in (None, name):
            seconds, answers = bare(texts)
            tell(name, seconds, [one in answers[other] for one, other in pairs(len(texts))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
