"""Limits: how much of a provider's allowance is used, and how often it refuses, in simulated time."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipeline.chat.limits import Ceiling, Charges, Limits, Mark, Signal, Window

PROMPT = 100


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


def simulated(
    provider: Provider, limits: Limits, *, minutes: float, latency_s: float, allowed: int, told: bool
) -> None:
    """As many requests as the limits let through, one after another."""
    rng = random.Random(0)
    responses: list[tuple[float, int, float, dict[str, Mark], int, bool, dict[str, Signal]]] = []
    now, number = 0.0, 0
    charges = Charges(PROMPT, allowed)
    while now < 60 * minutes:
        wait_s = limits.wait_s(charges, now)
        if wait_s > 0:
            then = now + wait_s
            if responses and responses[0][0] <= then:
                now, _, sent_at, marks, tokens, admitted, signals = heapq.heappop(responses)
                if admitted:
                    limits.answered(marks, charges, Charges(PROMPT, tokens), signals, now)
                else:
                    limits.refused(marks, charges, signals, sent_at, 1.0, now)
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


def used(provider: Provider, since: float, until: float) -> float:
    """The share of what the provider allowed in this time."""
    return sum(charge for at, charge in provider.admitted if since <= at < until) / (
        provider.limit / 60 * (until - since)
    )


@pytest.mark.parametrize("latency_s", [0.5, 5.0, 30.0])
@pytest.mark.parametrize(("counted", "allowed"), [("allowed", 2_000), ("used", 2_000), ("used", 32_768)])
def test_a_published_limit_is_used_and_hardly_ever_exceeded(counted: str, allowed: int, latency_s: float) -> None:
    provider = Provider(200_000, (lambda _: allowed) if counted == "allowed" else float)
    simulated(provider, Limits(Window(1000)), minutes=8, latency_s=latency_s, allowed=allowed, told=True)
    late = [at for at in provider.refused if at > 60 + 2 * latency_s]
    assert used(provider, 60 + 2 * latency_s, 480) >= 0.95
    assert len(late) <= 0.01 * sum(at > 60 for at, _ in provider.admitted)


@pytest.mark.parametrize("latency_s", [0.5, 5.0, 30.0])
@pytest.mark.parametrize("allowed", [2_000, 32_768])
def test_a_limit_that_only_the_config_names_is_used_and_kept(allowed: int, latency_s: float) -> None:
    provider = Provider(1e9, float)
    limits = Limits(Window(1000), {"tokens": Ceiling(200_000, 60.0, 0.0)})
    simulated(provider, limits, minutes=8, latency_s=latency_s, allowed=allowed, told=False)
    provider.limit = 200_000
    assert 0.95 <= used(provider, 60 + 2 * latency_s, 480) <= 1.03
    minutes = [used(provider, start, start + 60) for start in range(0, 420, 10)]
    assert max(minutes) < 1.2


def test_the_users_own_limit_holds_beside_a_larger_one_of_the_provider() -> None:
    provider = Provider(2_000_000, float)
    limits = Limits(Window(1000), {"tokens": Ceiling(200_000, 60.0, 0.0)})
    simulated(provider, limits, minutes=4, latency_s=1.0, allowed=2_000, told=True)
    assert 0.9 <= 10 * used(provider, 60, 240) <= 1.01


def test_a_refusal_that_no_published_limit_explains_is_one_of_load() -> None:
    limits, charges = Limits(Window(1000)), Charges(PROMPT, 100)
    plenty, nothing = Signal(200_000, 150_000), Signal(200_000, 50)
    marks = limits.take(charges, 0.0)
    limits.answered(marks, charges, None, {"tokens": plenty}, 1.0)
    before = limits.window.size
    limits.refused(limits.take(charges, 1.0), charges, {"tokens": plenty}, 1.0, None, 1.1)
    assert limits.window.size < before and limits.wait_s(charges, 1.2) < 0.1
    before = limits.window.size
    limits.refused(limits.take(charges, 1.2), charges, {"tokens": nothing}, 1.2, None, 1.3)
    assert limits.window.size == before and limits.wait_s(charges, 1.3) > 1.0
