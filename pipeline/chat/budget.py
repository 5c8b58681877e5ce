"""A budget that holds: reserved at the worst case before a request goes out, settled by what it cost.

In: costs. Out: whether there is money for one more. What was reserved and never settled, for its asker died or no answer
came, stays spent: it may have been billed. `lines` of JSON bring it through a crash; each says what is new since the last.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.config import Price


@dataclass(frozen=True)
class Cost:
    """US dollars, and tokens of prompt and answer."""

    usd: float = 0.0
    tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.usd + other.usd, self.tokens + other.tokens)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.usd - other.usd, self.tokens - other.tokens)


@dataclass(frozen=True)
class Usage:
    """The tokens of a request. `reasoning` are among those of the `completion`, `cached` among those of the `prompt`."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    def cost(self, price: Price) -> Cost:
        """What a provider bills for it."""
        cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
        reasoning_price = price.completion if price.reasoning is None else price.reasoning
        usd = (self.prompt - self.cached) * price.prompt + self.cached * cached_price
        usd += (self.completion - self.reasoning) * price.completion + self.reasoning * reasoning_price
        return Cost(usd / 1e6, self.prompt + self.completion)

    def worst_cost(self, price: Price) -> Cost:
        """The most that a provider may bill for so many tokens, whichever of them are cached or reasoning."""
        prompt = max(price.prompt, price.cached_prompt or 0.0)
        completion = max(price.completion, price.reasoning or 0.0)
        return Cost((self.prompt * prompt + self.completion * completion) / 1e6, self.prompt + self.completion)


class Budget:
    """Dollars and tokens, each without a limit where it is None."""

    def __init__(self, usd: float | None, tokens: int | None) -> None:
        self._usd, self._tokens = usd, tokens
        self.settled = Cost()
        self.reserved = Cost()
        self._open: dict[str, tuple[str, Cost]] = {}
        self._unsaid: dict[str, tuple[str, float, int]] = {}
        self._unsaid_settled: dict[str, tuple[float, int]] = {}

    @property
    def spent(self) -> Cost:
        """Settled and reserved together: the most that may have been billed."""
        return self.settled + self.reserved

    def fits(self, cost: Cost) -> bool:
        """Whether so much more may be spent now."""
        return self._within(self.spent + cost)

    def may_fit(self, cost: Cost) -> bool:
        """Whether it might fit once all that is reserved has come out cheaper."""
        return self._within(self.settled + cost)

    def _within(self, cost: Cost) -> bool:
        return (self._usd is None or cost.usd <= self._usd) and (self._tokens is None or cost.tokens <= self._tokens)

    def reserve(self, ticket: str, request_id: str, cost: Cost) -> None:
        """Put money aside for a request that goes out under this ticket."""
        self._open[ticket] = request_id, cost
        self.reserved += cost
        self._unsaid[ticket] = request_id, cost.usd, cost.tokens

    def settle(self, ticket: str, cost: Cost) -> None:
        """What it cost in the end. A ticket that is not open was settled before."""
        if ticket in self._open:
            self.reserved -= self._open.pop(ticket)[1]
            self.settled += cost
            self._unsaid_settled[ticket] = cost.usd, cost.tokens

    def settle_at_worst(self, ticket: str) -> None:
        """Nobody knows what it cost."""
        if ticket in self._open:
            self.settle(ticket, self._open[ticket][1])

    def open_requests(self) -> dict[str, list[str]]:
        """The tickets that are not settled, by their requests."""
        found: dict[str, list[str]] = {}
        for ticket, (request_id, _) in self._open.items():
            found.setdefault(request_id, []).append(ticket)
        return found

    def line(self) -> str | None:
        """What is new since the last line; None where nothing is."""
        if not (self._unsaid or self._unsaid_settled):
            return None
        said = json.dumps({"reserved": self._unsaid, "settled": self._unsaid_settled}, separators=(",", ":"))
        self.forget()
        return said

    def forget(self) -> None:
        """Nobody wants to hear what is new."""
        self._unsaid, self._unsaid_settled = {}, {}

    def replay(self, lines: Iterable[str]) -> None:
        """Take over what earlier processes wrote, in any order, some of it twice. A line that is cut was never acted upon."""
        costs: dict[str, Cost] = {}
        for line in lines:
            try:
                said = json.loads(line)
                reserved, settled = said["reserved"].items(), said["settled"].items()
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            for ticket, (request_id, usd, tokens) in reserved:
                if ticket not in self._open:
                    self.reserve(ticket, request_id, Cost(usd, tokens))
            costs.update((ticket, Cost(usd, tokens)) for ticket, (usd, tokens) in settled)
        for ticket, cost in costs.items():
            self.settle(ticket, cost)
        self.forget()
