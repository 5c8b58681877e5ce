"""What the report reads of a run.

In: the root of a run. Out: its manifests and rows. Those of the evaluation come as streams, without token ids, for a
cluster's evaluation does not fit into the memory of the process that reports it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from pipeline import storage
from pipeline.config import STAGES
from pipeline.records import Generation, Score, Step, Vote, from_row
from pipeline.stage import Manifest, StageFolder
from pipeline.storage import Place

TOKEN_IDS = ("tokens", "prompt_tokens", "token_ends")
"""Columns of generations that nothing here needs, and most of the table."""


@dataclass(frozen=True)
class RunTables:
    """The tables of one run."""

    root: Place

    def manifests(self) -> dict[str, Manifest]:
        """The manifests of the complete stages before this one, in flow order."""
        found = ((stage, StageFolder(self.root, stage).manifest()) for stage in STAGES if stage != "report")
        return {stage: manifest for stage, manifest in found if manifest}

    def steps(self) -> list[Step]:
        """The optimizer steps of both training stages; none where the run has not trained."""
        train = StageFolder(self.root, "train")
        return storage.read_rows(train.table("steps"), Step) if train.manifest() else []

    def generations(self) -> Iterator[Generation]:
        """Every answer of every evaluated model, its token ids left out."""
        kept = [field.name for field in fields(Generation) if field.name not in TOKEN_IDS]
        without: dict[str, list[int]] = {name: [] for name in TOKEN_IDS}
        for row in storage.iter_dicts(StageFolder(self.root, "evaluate").table("generations"), kept):
            yield from_row(Generation, {**row, **without})

    def scores(self) -> Iterator[Score]:
        """Every grade: an answer x budget x curve x convention."""
        for row in storage.iter_dicts(StageFolder(self.root, "evaluate").table("scores")):
            yield from_row(Score, row)

    def votes(self) -> Iterator[Vote]:
        """What several answers come to together; none where one answer was asked for."""
        table = StageFolder(self.root, "evaluate").table("votes")
        if table.files(".parquet"):
            for row in storage.iter_dicts(table):
                yield from_row(Vote, row)
