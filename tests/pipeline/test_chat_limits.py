"""Limits: how much of a provider's allowance is used, and how often it refuses, in simulated time."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipeline.chat.limits import Charges, Limits, Mark, Signal, Window

PROMPT, ALLOWED = 100, 2_000


@dataclass
class Provider:
    """A bucket that fills evenly. `count` says what an answer of so many tokens counts."""

    limit: float
    count: Callable[[int], float]
    level: float = 0.0
    at: float = 0.0
    admitted: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.level = self.limit

    def ask(self, tokens: int, now: float) -> tuple[bool, Signal]:
        self.level = min(self.limit, self.level + self.limit / 60 * (now - self.at))
        self.at = now
        charge = PROMPT + self.count(tokens)
        there = charge <= self.level
        if there:
            self.level -= charge
            self.admitted.append((now, charge))
        else:
            self.refused.append(now)
        return there, Signal(self.limit, max(0.0, self.level))


def simulated(provider: Provider, *, minutes: float, latency_s: float, told: bool = True, most: int = 1000) -> Limits:
    """As many requests as the limits let through, one after another."""
    rng = random.Random(0)
    limits = Limits(Window(most))
    responses: list[tuple[float, int, float, dict[str, Mark], int, bool, dict[str, Signal]]] = []
    now, number = 0.0, 0
    charges = Charges(PROMPT, ALLOWED)
    while now < 60 * minutes:
        wait_s = limits.wait_s(charges, now)
        if wait_s > 0:
            then = now + wait_s
            if responses and responses[0][0] <= then:
                now, _, sent_at, marks, tokens, admitted, signals = heapq.heappop(responses)
                if admitted:
                    limits.answered(marks, charges, Charges(PROMPT, tokens), signals, now)
                else:
                    limits.refused(marks, signals, sent_at, 1.0, now)
            else:
                now = then + 1e-6
            continue
        number += 1
        tokens = rng.randrange(50, 950)
        marks = limits.take(charges, now)
        admitted, signal = provider.ask(tokens, now)
        late = latency_s * rng.uniform(0.5, 1.5) if admitted else 0.05
        heapq.heappush(
            responses, (now + late, number, now, marks, tokens, admitted, {"tokens": signal} if told else {})
        )
    return limits


def used(provider: Provider, since: float, until: float) -> float:
    """The share of what the provider allowed in this time."""
    return sum(charge for at, charge in provider.admitted if at >= since) / (provider.limit / 60 * (until - since))


@pytest.mark.parametrize("latency_s", [0.5, 5.0, 30.0])
@pytest.mark.parametrize("counted", ["allowed", "used"])
def test_a_published_limit_is_used_and_hardly_ever_exceeded(counted: str, latency_s: float) -> None:
    provider = Provider(200_000, (lambda tokens: ALLOWED) if counted == "allowed" else float)
    simulated(provider, minutes=8, latency_s=latency_s)
    late = [at for at in provider.refused if at > 60]
    print(counted, latency_s, used(provider, 60, 480), len(late), len(provider.refused), len(provider.admitted))
    assert used(provider, 60, 480) >= 0.95
    assert len(late) <= 0.01 * sum(at > 60 for at, _ in provider.admitted)
