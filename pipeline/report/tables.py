"""What the report reads of a run.

In: the root of a run. Out: its manifests and rows. Generations and scores come as streams, without token
ids, for a cluster's evaluation does not fit into the memory of the process that reports it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import storage
from pipeline.config import STAGES
from pipeline.records import Generation, Score, Step, from_row
from pipeline.stage import Manifest, StageFolder
from pipeline.storage import Place


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
        for row in storage.iter_dicts(StageFolder(self.root, "evaluate").table("generations")):
            yield from_row(Generation, {**row, "tokens": [], "prompt_tokens": [], "token_ends": []})

    def scores(self) -> Iterator[Score]:
        """Every grade: an answer x budget x curve x convention."""
        for row in storage.iter_dicts(StageFolder(self.root, "evaluate").table("scores")):
            yield from_row(Score, row)
