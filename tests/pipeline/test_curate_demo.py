"""The demo's problems, through all rules of curation."""

import json
from collections import Counter

import pytest
from servers import REPO

from pipeline import config as configuration
from pipeline.curate.duplicates import FINGERPRINT, fates
from pipeline.curate.examination import EXAMINED, Examiner
from pipeline.curate.words import words
from pipeline.records import Problem
from pipeline.sources import files_of, origin_of, read, read_benchmark

Curated = tuple[list[str], Counter[str], list[Problem]]


@pytest.fixture(scope="module")
def demo() -> Curated:
    """The problems of the demo that are left, the rejected by reason, and its held-out problems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO)
        config = configuration.load("configs/demo.yaml")
        heldout = [
            item
            for benchmark in config.evaluate.benchmarks
            for item in read_benchmark(benchmark, files_of(benchmark, None))
        ]
        rows = [
            (row, source, origin_of(source, file))
            for source in config.curate.sources
            for file in files_of(source, None)
            for row in read(file, source)
        ]
    examined = Examiner(config.curate, heldout).examine(*map(list, zip(*rows, strict=True)))
    assert examined.schema == EXAMINED
    there = examined.filter(examined["problem"].is_valid())
    found = fates(there.select(FINGERPRINT.names), config.curate.duplicate_threshold, same_givens=True).to_pylist()
    reasons = [row["reason"] for row in examined["rejected"].drop_null().to_pylist()]
    texts = [row["problem"] for row in there["problem"].to_pylist()]
    kept = [text for text, fate in zip(texts, found, strict=True) if fate["reason"] is None]
    return kept, Counter([*reasons, *filter(None, (fate["reason"] for fate in found))]), heldout


def test_the_demos_planted_faults_are_found_and_nothing_else_is_dropped(demo: Curated) -> None:
    kept, reasons, _ = demo
    assert reasons == json.loads((REPO / "configs/demo/planted.json").read_text())
    assert len(kept) >= 150


def test_no_held_out_problem_of_the_demo_is_in_its_training_set(demo: Curated) -> None:
    kept, _, heldout = demo
    assert len(heldout) >= 150
    assert not {tuple(words(text)) for text in kept} & {tuple(words(item.problem)) for item in heldout}
