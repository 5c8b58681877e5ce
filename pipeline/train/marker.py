"""The marker of an exported model: which file is written last, and what it says.

In: an exported folder. Out: how its model was made. Apart from `model`, because whoever only asks whether
a model is there should not have to import torch.
"""

import json
from dataclasses import asdict, dataclass, field

from pipeline.records import Step
from pipeline.storage import Place

MARKER = "longthought.json"


CHECK_PROMPT = "What is 1+1?"
"""A question whose token ids the marker tells, so that a server can be held to them."""


@dataclass(frozen=True)
class Made:
    """How a model came to be: the `recipe` is a hash of all that decides it.

    `check_ids` are the token ids of `CHECK_PROMPT` as a prompt, as in training.
    """

    recipe: str
    steps: list[Step]
    check_ids: list[int] = field(default_factory=list)


def read(folder: Place) -> Made | None:
    """What the marker says; None where there is none: the folder is missing or half-written."""
    marker = folder / MARKER
    if not marker.exists():
        return None
    values = json.loads(marker.read())
    return Made(values["recipe"], [Step(**step) for step in values["steps"]], values["check_ids"])


def write(folder: Place, made: Made) -> None:
    """Declare the folder complete."""
    (folder / MARKER).write(json.dumps(asdict(made)).encode())


def remove(folder: Place) -> None:
    """Take the declaration back, before the folder is replaced."""
    (folder / MARKER).delete()
