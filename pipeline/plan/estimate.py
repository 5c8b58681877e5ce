"""Numbers that are not known yet: what they are at least, likely and at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Not negative. A number that is known has all three alike."""

    low: float
    likely: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether it is known."""
        return self.low == self.high

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: "Estimate | float") -> "Estimate":
        by = other if isinstance(other, Estimate) else exactly(other)
        return Estimate(self.low * by.low, self.likely * by.likely, self.high * by.high)

    def __truediv__(self, other: "Estimate") -> "Estimate":
        """By what goes up and down with it: the least by the least."""
        return Estimate(self.low / other.low, self.likely / other.likely, self.high / other.high)

    def at_least(self, other: "Estimate") -> "Estimate":
        """The larger of two."""
        return Estimate(max(self.low, other.low), max(self.likely, other.likely), max(self.high, other.high))

    def at_most(self, other: "Estimate | float") -> "Estimate":
        """The smaller of two."""
        limit = other if isinstance(other, Estimate) else exactly(other)
        return Estimate(min(self.low, limit.low), min(self.likely, limit.likely), min(self.high, limit.high))


def exactly(number: float) -> Estimate:
    """A number that is known."""
    return Estimate(number, number, number)


NOTHING = exactly(0)
