"""Models behind an API: where they are, how they answer, what they cost."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.section import RUNTIME, Positive, RuntimePositive, RuntimeSeconds, RuntimeStr, Section


class Price(Section):
    """US dollars for a million tokens."""

    prompt: Annotated[float, Field(ge=0)] = 0
    cached_prompt: Annotated[float | None, Field(ge=0)] = None
    """Prompt tokens read from the provider's cache; the price of `prompt` where absent."""
    completion: Annotated[float, Field(ge=0)] = 0
    reasoning: Annotated[float | None, Field(ge=0)] = None
    """Tokens of the thought; the price of `completion` where absent."""


class RateLimits(Section):
    """What a key may do. What a provider publishes in its headers need not be set."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Of prompts and answers together."""
    input_tokens_per_minute: Positive | None = None
    output_tokens_per_minute: Positive | None = None
    concurrent: Positive = 100_000
    """Requests under way at once, over all actors. Below it the number follows from refusals."""


class Route(Section):
    """Another key for the same model, or another place that serves it. `price` holds for all of them: give the dearest."""

    base_url: str
    model: str | None = None
    """What the model is called there, if otherwise."""
    api_key_env: Annotated[str | None, Field(pattern="^[A-Z_][A-Z0-9_]*$")] = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the requests, beside the weights of the others."""
    limits: RateLimits = RateLimits()


class Batch(Section):
    """Asking by a provider's batch API: files of requests, answers within a day, at half the price (set `price` so)."""

    gather_s: RuntimeSeconds = 5
    """Requests that come within this time of one another go in one batch."""
    poll_s: RuntimeSeconds = 30
    """Seconds between two looks at a batch."""
    max_requests: Positive = 50_000
    """In one batch."""


class Sampling(Section):
    """How a model answers. Only what is set is sent."""

    temperature: Annotated[float | None, Field(ge=0)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_tokens: Positive
    """Longest answer, in the model's tokens."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body, such as `reasoning_effort` or `include_reasoning`."""


class Endpoint(Section):
    """A model behind an OpenAI-compatible API."""

    model: str
    """Name of the model in requests."""
    base_url: RuntimeStr = "https://api.openai.com/v1"
    api_key_env: Annotated[str | None, Field(pattern="^[A-Z_][A-Z0-9_]*$"), RUNTIME] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key, which never stands in a config. Null: no key."""
    replay: Annotated[str | None, RUNTIME] = None
    """A file of recorded traces. Where set, the job serves them itself at `base_url` (which must be a
    loopback address) instead of asking a provider: a rerun without paying."""
    sampling: Sampling
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """OpenAI's reasoning models want `max_completion_tokens`."""
    send_seed: bool = True
    """Send the sample index as `seed`, so that samples differ and repeat. Off where a provider refuses it."""
    price: Annotated[Price, RUNTIME] = Price()
    budget_usd: Annotated[float | None, Field(gt=0), RUNTIME] = None
    """Most US dollars for a stage, resumptions included. The run stops before a request that might go beyond it."""
    budget_tokens: Annotated[Positive | None, RUNTIME] = None
    """The same in tokens, of prompts and answers."""
    limits: Annotated[RateLimits, RUNTIME] = RateLimits()
    weight: Annotated[float, Field(gt=0), RUNTIME] = 1.0
    """Its share of the requests, beside the weights of its routes."""
    routes: Annotated[tuple[Route, ...], RUNTIME] = ()
    """Further keys and places. One that refuses us or is down is left out."""
    max_in_flight: RuntimePositive = 256
    """Requests under way at once, for each actor."""
    stream: Annotated[bool, RUNTIME] = False
    """Ask for the answer piece by piece, so that a long thought outlives proxies that cut silent connections."""
    batch: Annotated[Batch | None, RUNTIME] = None
    """Ask by the provider's batch API instead. Null: one request for each question."""
    timeout_s: RuntimeSeconds = 600
    """Longest wait for one answer; where it is a stream, for its next piece."""
    max_attempts: RuntimePositive = 12
    """How often one request is tried when the endpoint limits us or fails."""
    unreachable_s: RuntimeSeconds = 60
    """The run stops when nothing has answered for so long."""
    terms: Annotated[str | None, RUNTIME] = None
    """For the dataset cards: the licence of the model's output ("mit"), or the URL of the provider's terms of use, or
    what they say about publishing it."""

    @property
    def ways(self) -> "tuple[Endpoint, ...]":
        """The endpoint through each of its routes, its own first."""
        own = self.model_copy(update={"routes": ()})
        return (own, *(own.model_copy(update=_set(route)) for route in self.routes))

    @model_validator(mode="after")
    def _batches_go_one_way(self) -> "Endpoint":
        if self.batch and (self.routes or self.stream):
            raise ValueError("batch is set, and so is routes or stream: a batch goes to one place, and comes whole")
        return self

    @model_validator(mode="after")
    def _a_budget_in_dollars_has_prices(self) -> "Endpoint":
        if self.budget_usd is not None and not (self.price.prompt and self.price.completion):
            raise ValueError(
                "budget_usd is set, but price is 0, so that not all would count: set price.prompt and .completion"
            )
        return self

    @model_validator(mode="after")
    def _sampling_does_not_name_the_limit_twice(self) -> "Endpoint":
        twice = {"model", "messages", "stream", "max_tokens", "max_completion_tokens"} & set(self.sampling.extra)
        if twice:
            raise ValueError(f"sampling.extra holds {sorted(twice)[0]!r}, which the client sets itself: remove it")
        return self


def _set(route: Route) -> dict[str, Any]:
    return {name: value for name, value in route if value is not None or name == "api_key_env"}
