"""The marker of an exported model: which file is written last, and what it says.

In: an exported folder. Out: how its model was made. Apart from `model`, because whoever only asks whether
a model is there should not have to import torch.
"""

import json
from dataclasses import asdict, dataclass

from pipeline.records import Step
from pipeline.storage import Place

MARKER = "longthought.json"


@dataclass(frozen=True)
class Made:
    """How a model came to be: the `recipe` is a hash of all that decides it."""

    recipe: str
    steps: list[Step]


def read(folder: Place) -> Made | None:
    """What the marker says; None where there is none: the folder is missing or half-written."""
    marker = folder / MARKER
    if not marker.exists():
        return None
    values = json.loads(marker.read())
    return Made(values["recipe"], [Step(**step) for step in values["steps"]])


def write(folder: Place, made: Made) -> None:
    """Declare the folder complete."""
    (folder / MARKER).write(json.dumps(asdict(made)).encode())


def remove(folder: Place) -> None:
    """Take the declaration back, before the folder is replaced."""
    (folder / MARKER).delete()
