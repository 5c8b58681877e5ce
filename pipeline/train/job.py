"""What one stage of training is. Apart from `stage`, because whoever only starts it should not have to import torch."""

from dataclasses import dataclass

from pipeline.config import Train
from pipeline.records import TrainStage
from pipeline.storage import Place


@dataclass(frozen=True)
class StageJob:
    """A stage, the model it starts from (a name as in `train.model`), its packed rows, and the folder of the trained model.

    `recipe` is a hash of all that decides that model.
    """

    stage: TrainStage
    settings: Train
    model: str
    rows: Place
    target: Place
    recipe: str
