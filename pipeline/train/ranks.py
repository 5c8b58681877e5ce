"""What the ranks of a training owe one another.

In: a block that every rank runs. Out: the same end of it on all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from pipeline.errors import UserError


@contextmanager
def together() -> Iterator[None]:
    """A user's mistake that one rank meets in the block is raised on all: alone, it would leave the others waiting."""
    met: UserError | None = None
    try:
        yield
    except UserError as error:
        met = error
    everyones: list[UserError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, met)
    if first := next((each for each in everyones if each is not None), None):
        raise first
