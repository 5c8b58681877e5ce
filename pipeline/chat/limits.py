"""How fast one key may be asked: what its provider publishes, and what its refusals teach.

In: requests as they go out, responses as they come back, the time. Out: how long the next request has to wait. Nothing
here asks a clock or the network.

A provider's limit is taken for a bucket that fills all the time; `Allowance` follows the provider's own by what the
headers say is left in it. Where nothing is published `Window` finds how many requests may be in flight: AIMD (Chiu and
Jain 1989), as TCP does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_WINDOW = 256
SHRINK = 0.7
BURST_S = 5.0
"""A limit that the config names may be used for so long at once: its provider may count in a sliding window."""
KEPT_S = 2.0
"""What a limit gives in this time is left alone: what is left there is an estimate."""
HASTE = 2.0
"""What has been saved up is used at no more than so many times the rate: where it is less than we think, that costs a few
refusals and not a hundred."""
FIRST_RATIO = 0.25
"""Few answers are as long as they may be, and many providers count what comes."""
LEARN_FROM = 0.01
"""Of a limit so much must have been sent between two responses that are compared."""
LEARNT = 0.3
FULL = 0.98


@dataclass(frozen=True)
class Signal:
    """What a response says of one limit: its size, what is left, and the seconds in which it fills anew."""

    limit: float
    remaining: float
    period_s: float = 60.0


@dataclass(frozen=True)
class Mark:
    """The moment a request went out: how much had been sent by then, itself included, and when (seconds)."""

    sent: float
    at: float


class _Bucket:
    """A limit: how much of it is left.

    What a request takes of it in the end is not known when it goes out: some providers count the longest answer allowed,
    some the one that came. So what we count is multiplied with a ratio that is learnt.
    """

    def __init__(self, limit: float, period_s: float, most: float, now: float) -> None:
        self._limit, self._rate = limit, limit / period_s
        self._most = self._level = most
        self._at = self._free_at = now
        self._sent = 0.0
        self._ratio, self._learnt = FIRST_RATIO, 0

    def _left(self, now: float) -> float:
        return min(self._most, self._level + self._rate * (now - self._at))

    def _needed(self, charge: float) -> float:
        return min(self._ratio * charge + KEPT_S * self._rate, self._most)

    def wait_s(self, charge: float, now: float) -> float:
        """Seconds until a request that takes so much may go; 0 for now. One larger than the limit waits until it is full."""
        return max(0.0, (self._needed(charge) - self._left(now)) / self._rate, self._free_at - now)

    def take(self, charge: float, now: float) -> Mark:
        """A request goes out."""
        self._level = self._left(now) - self._ratio * charge
        self._at = now
        self._sent += charge
        self._free_at = max(self._free_at, now) + self._ratio * charge / (HASTE * self._rate)
        return Mark(self._sent, now)

    def _learn(self, ratio: float, share: float) -> None:
        """The first ones count alike, later ones so much."""
        self._learnt += 1
        self._ratio += max(share, 1 / self._learnt) * (ratio - self._ratio)


class Ceiling(_Bucket):
    """One limit that the config names. It counts what is used."""

    def __init__(self, limit: float, period_s: float, now: float) -> None:
        super().__init__(limit, period_s, limit / period_s * BURST_S, now)

    def settle(self, charge: float, used: float) -> None:
        """What it took in the end."""
        self._level += self._ratio * charge - used
        if charge:
            self._learn(used / charge, 0.05)


class Allowance(_Bucket):
    """One limit that the provider publishes, and what it says is left of it."""

    def __init__(self, signal: Signal, now: float) -> None:
        super().__init__(signal.limit, signal.period_s, signal.limit, now)
        self._newest = -1.0
        self._anchor: tuple[Mark, float] | None = None

    def observe(self, signal: Signal, mark: Mark, now: float) -> None:
        """What a response says was left when its request, of this mark, was let in."""
        if mark.sent <= self._newest:
            return
        self._newest = mark.sent
        self._limit = self._most = max(signal.limit, 1.0)
        self._rate = self._limit / signal.period_s
        self._compare(mark, signal.remaining)
        since = self._rate * (now - mark.at) - self._ratio * (self._sent - mark.sent)
        self._level, self._at = min(self._most, signal.remaining + since), now

    def _compare(self, mark: Mark, remaining: float) -> None:
        if self._anchor is None:
            self._anchor = mark, remaining
            return
        before, had = self._anchor
        sent = mark.sent - before.sent
        if self._ratio * sent < LEARN_FROM * self._limit:
            return
        took = had - remaining + self._rate * (mark.at - before.at)
        ratio = min(max(took / sent, 0.01), 4.0)
        if remaining >= FULL * self._limit:  # it may have been full all the time, and taken less
            ratio = min(ratio, self._ratio)
        self._learn(ratio, LEARNT)
        self._anchor = mark, remaining

    def explains(self, charge: float, now: float) -> bool:
        """Whether a refusal of a request that takes so much is no surprise. A limit for a day explains none for now."""
        return self._limit <= 60.0 * self._rate and self._left(now) < self._needed(charge)

    def refused(self, now: float) -> None:
        """The provider says that nothing is left."""
        self._level, self._at = min(0.0, self._left(now)), now


class Window:
    """How many requests may be in flight: one more for each round of answers, fewer where one is refused."""

    def __init__(self, most: int, first: int = FIRST_WINDOW) -> None:
        self._most = most
        self.size = float(min(first, most))
        self._doubling = True
        self._cut_at = float("-inf")

    def answered(self, in_flight: int) -> None:
        """An answer came while so many were in flight. A window that is not used tells nothing."""
        if in_flight >= 0.8 * self.size:
            self.size = min(self.size + (1.0 if self._doubling else 1.0 / self.size), float(self._most))

    def refused(self, sent_at: float, now: float) -> None:
        """A request that was sent then is refused. All that were sent before the last cut are one refusal."""
        if sent_at > self._cut_at:
            self.size = max(1.0, self.size * SHRINK)
            self._cut_at, self._doubling = now, False


@dataclass(frozen=True)
class Charges:
    """What a request may take of each limit: an estimate before, the usage after."""

    input_tokens: float
    output_tokens: float

    def of(self, kind: str) -> float:
        """By the name of a limit: requests, tokens, input_tokens, output_tokens."""
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return 1.0 if kind == "requests" else tokens.get(kind, self.input_tokens + self.output_tokens)


@dataclass
class Limits:
    """All limits of one key, by kind: the `ceilings` that the config names, and the allowances that the provider publishes."""

    window: Window
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    published: dict[str, Allowance] = field(default_factory=dict)
    in_flight: int = 0
    paused_until: float = 0.0

    def wait_s(self, charges: Charges, now: float) -> float:
        """Seconds until this request may go; infinite where it waits for an answer, not for the time."""
        if self.in_flight >= int(self.window.size):
            return float("inf")
        buckets = (*self.ceilings.items(), *self.published.items())
        return max(self.paused_until - now, 0.0, *(bucket.wait_s(charges.of(kind), now) for kind, bucket in buckets))

    def take(self, charges: Charges, now: float) -> dict[str, Mark]:
        """The request goes out. Returns its marks in what is published."""
        self.in_flight += 1
        for kind, ceiling in self.ceilings.items():
            ceiling.take(charges.of(kind), now)
        return {kind: allowance.take(charges.of(kind), now) for kind, allowance in self.published.items()}

    def answered(
        self,
        marks: Mapping[str, Mark],
        charges: Charges,
        used: Charges | None,
        signals: Mapping[str, Signal],
        now: float,
    ) -> None:
        """Its response is there. `used` is None where the provider does not tell."""
        self.window.answered(self.in_flight)
        self.in_flight -= 1
        self._observe(marks, signals, now)
        if used is not None:
            for kind, ceiling in self.ceilings.items():
                ceiling.settle(charges.of(kind), used.of(kind))

    def _observe(self, marks: Mapping[str, Mark], signals: Mapping[str, Signal], now: float) -> None:
        for kind, signal in signals.items():
            allowance = self.published.setdefault(kind, Allowance(signal, now))
            allowance.observe(signal, marks.get(kind, Mark(0.0, now)), now)

    def refused(
        self,
        marks: Mapping[str, Mark],
        charges: Charges,
        signals: Mapping[str, Signal],
        sent_at: float,
        retry_after_s: float | None,
        now: float,
    ) -> None:
        """It was one too many: for what is published, or for what the provider bears at once and does not tell."""
        self.in_flight -= 1
        self._observe(marks, signals, now)
        reasons = [each for kind, each in self.published.items() if each.explains(charges.of(kind), now)]
        for allowance in reasons:
            allowance.refused(now)
        if not reasons:
            self.window.refused(sent_at, now)
        self.paused_until = max(self.paused_until, now + (retry_after_s or 0.0))

    def failed(self) -> None:
        """It failed for a reason that has nothing to do with limits."""
        self.in_flight -= 1
