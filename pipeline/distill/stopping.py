"""How many more answers to ask for: enough is right, or one more right answer would cost too much.

In: how many answers of a problem were right, how many tokens they took. Out: how many to ask for now; 0 to stop.

The chance that the next answer is right is the mean of the Beta distribution that follows from Jeffreys' prior. Where
`give_up_tokens` is set, a problem is left when its next right answer is expected to take more tokens than that answer is
worth: of all problems those are sampled further that give most for a token, with no need to know of one another. The first
right answer is worth the most, for without one the problem is lost. Hard problems have long answers, so they are left sooner.
"""

from dataclasses import dataclass

from pipeline.config import Distill

PRIOR = 0.5
"""Right and wrong answers of Jeffreys' prior."""


@dataclass
class Tried:
    """What became of a problem's answers so far."""

    right: int = 0
    samples: int = 0
    tokens: int = 0

    def add(self, *, right: bool, tokens: int) -> None:
        """One more answer."""
        self.right += right
        self.samples += 1
        self.tokens += tokens

    @property
    def chance(self) -> float:
        """That the next answer is right."""
        return (PRIOR + self.right) / (2 * PRIOR + self.samples)


def wanted(tried: Tried, config: Distill) -> int:
    """How many answers to ask for now: as many as may all be needed."""
    left = min(config.keep - tried.right, config.max_samples - tried.samples)
    if left <= 0 or gives_up(tried, config):
        return 0
    if config.give_up_tokens is None:
        return left
    return max(1, min(left, round(tried.chance * (config.keep - tried.right))))


def gives_up(tried: Tried, config: Distill) -> bool:
    """Whether one more right answer is expected to cost too much."""
    if config.give_up_tokens is None or not tried.samples:
        return False
    worth = config.give_up_tokens * (config.further_worth if tried.right else 1.0)
    return tried.tokens / tried.samples / tried.chance > worth
