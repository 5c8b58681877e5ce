"""Where the bins of a histogram of whole numbers lie.

In: the least and the greatest value. Out: `Bins`. Counting and drawing are left to `card` and `report`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST, FEWEST = 36, 9
WIDE = 8
"""The greatest value of a wide span is so many times the least one."""


@dataclass(frozen=True)
class Bins:
    """`edges` has one value more than there are bins; `logarithmic`: they grow, as the axis should."""

    edges: NDArray[np.float64]
    logarithmic: bool


def bins(low: int, high: int) -> Bins:
    """FEWEST to MOST bins from `low` to `high`, both at least 1 and inside: of equal ratio where these span a lot."""
    logarithmic = high >= WIDE * low and high - low > MOST
    return Bins(_growing(low, high) if logarithmic else _equal(low, high), logarithmic)


def _growing(low: int, high: int) -> NDArray[np.float64]:
    """The ends are whole numbers, or a bin would hold none and its neighbour two."""
    return np.unique(np.ceil(np.geomspace(low, high + 1, MOST + 1))).astype(np.float64)


def _equal(low: int, high: int) -> NDArray[np.float64]:
    """Bins of equally many whole numbers, which stand in their middle; empty bins around few values."""
    width = math.ceil((high - low + 1) / MOST)
    count = math.ceil((high - low + 1) / width)
    before = min(max(0, FEWEST - count) // 2, low // width)
    return np.arange(max(count, FEWEST) + 1, dtype=np.float64) * width + (low - before * width - 0.5)
