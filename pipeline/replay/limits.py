"""Rate limits as providers keep them: a bucket of requests and one of tokens for a minute, told in headers.

In: requests with their tokens. Out: whether one is let in, and `x-ratelimit-*` headers as OpenAI writes them: what is left
once this request is counted.
"""

import time
from dataclasses import dataclass, field

PERIOD_S = 60.0


@dataclass
class _Bucket:
    """Full at first; fills evenly within a period."""

    limit: int
    level: float
    at: float = field(default_factory=time.monotonic)

    def fill(self, now: float) -> None:
        self.level = min(float(self.limit), self.level + self.limit / PERIOD_S * (now - self.at))
        self.at = now

    def wait_s(self, charge: float) -> float:
        return max(0.0, charge - self.level) * PERIOD_S / self.limit


class Limiter:
    """Requests and tokens per minute; None is no limit. Where `told`, answers tell of them."""

    def __init__(self, requests: int | None, tokens: int | None, *, told: bool = True) -> None:
        limits = {"requests": requests, "tokens": tokens}
        self._buckets = {name: _Bucket(limit, limit) for name, limit in limits.items() if limit}
        self._told = told

    def admit(self, tokens: int) -> float:
        """0 where a request that counts so many tokens is let in, else the seconds after which it would be."""
        now = time.monotonic()
        charges = {"requests": 1, "tokens": tokens}
        for bucket in self._buckets.values():
            bucket.fill(now)
        wait_s = max((bucket.wait_s(charges[name]) for name, bucket in self._buckets.items()), default=0.0)
        if not wait_s:
            for name, bucket in self._buckets.items():
                bucket.level -= charges[name]
        return wait_s

    def headers(self) -> dict[str, str]:
        """What is left, as OpenAI tells it."""
        found = {}
        for name, bucket in self._buckets.items() if self._told else ():
            found[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level)))
            found[f"x-ratelimit-reset-{name}"] = f"{bucket.wait_s(bucket.limit):.3f}s"
        return found
