"""What it takes to ask a model so much: dollars, and time, with what decides it.

In: requests and tokens, and how an endpoint may be asked. Out: `Estimate`s in US dollars and seconds. How many requests a stage
makes is left to `counts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Endpoint, Price
from pipeline.plan import assumptions
from pipeline.plan.estimate import NOTHING, Estimate, exactly


@dataclass(frozen=True)
class Asked:
    """Requests, and the tokens of all prompts and all answers."""

    requests: Estimate
    prompt: Estimate
    completion: Estimate

    def __add__(self, other: "Asked") -> "Asked":
        return Asked(self.requests + other.requests, self.prompt + other.prompt, self.completion + other.completion)


NOT_ASKED = Asked(NOTHING, NOTHING, NOTHING)


@dataclass(frozen=True)
class Time:
    """Seconds, and what decides them."""

    seconds: Estimate
    bound: str

    def __add__(self, more: Estimate) -> "Time":
        return Time(self.seconds + more, self.bound)


def dollars(asked: Asked, price: Price) -> Estimate:
    """What a provider bills. At least: every prompt from its cache, and thoughts at the lower of their prices."""

    def least(whole: float, part: float | None) -> Estimate:
        return exactly(whole) if part is None else Estimate(min(whole, part), whole, max(whole, part))

    prompts = asked.prompt * least(price.prompt, price.cached_prompt)
    return (prompts + asked.completion * least(price.completion, price.reasoning)) * 1e-6


def time(
    asked: Asked, name: str, endpoint: Endpoint, stage: str, actors: int, token_s: Estimate, turns: int = 1
) -> Time:
    """How long a stage asks, at `token_s` seconds for a token of one answer. `name` is the endpoint's in the config.

    `turns` is how often it may ask about a row, each time after it has read the answers before.
    """
    ways = [Time(seconds, f"{name}.limits.{limit}") for limit, seconds in _at_limits(asked, endpoint).items()]
    ways.append(Time(asked.requests * (1 / (actors * assumptions.CLIENT_REQUESTS_S)), f"{stage}.actors"))
    if endpoint.batch:
        rounds = (asked.requests * (1 / (actors * endpoint.batch.max_requests))).at_least(exactly(1))
        # Of many rows in a batch one will need all turns.
        ways.append(Time(rounds.at_least(Estimate(1, turns, turns)) * assumptions.BATCH_S, f"{name}'s batches"))
    else:
        most = under_way(endpoint, actors)
        at_once = asked.requests.at_least(exactly(1)).at_most(most)
        few = at_once.likely < most
        bound = "the time of one answer" if few else f"{most:,} under way ({name}.max_in_flight)"
        ways.append(Time(asked.completion * token_s / at_once, bound))
    return slowest(ways)


def under_way(endpoint: Endpoint, actors: int) -> int:
    """Requests at once."""
    return min(actors * endpoint.max_in_flight, sum(way.limits.concurrent for way in endpoint.ways))


def slowest(ways: list[Time]) -> Time:
    """Of things that go on together the one that takes longest."""
    longest = max(ways, key=lambda way: way.seconds.likely)
    seconds = NOTHING
    for way in ways:
        seconds = seconds.at_least(way.seconds)
    return Time(seconds, longest.bound)


def _at_limits(asked: Asked, endpoint: Endpoint) -> Mapping[str, Estimate]:
    """Seconds by each limit that is set for every key."""
    amounts = {
        "requests_per_minute": asked.requests,
        "tokens_per_minute": asked.prompt + asked.completion,
        "input_tokens_per_minute": asked.prompt,
        "output_tokens_per_minute": asked.completion,
    }
    found = {}
    for limit, amount in amounts.items():
        each = [getattr(way.limits, limit) for way in endpoint.ways]
        if all(each):
            found[limit] = amount * (60 / sum(each))
    return found
