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
    """Reasoning tokens included, as every provider bills them."""


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
    max_in_flight: RuntimePositive = 256
    """Requests under way at once, for each actor."""
    timeout_s: RuntimeSeconds = 600
    """Longest wait for one answer."""
    max_attempts: RuntimePositive = 12
    """How often one request is tried when the endpoint limits us or fails."""
    unreachable_s: RuntimeSeconds = 60
    """The run stops when nothing has answered for so long."""
    terms: Annotated[str | None, RUNTIME] = None
    """For the dataset cards: the licence of the model's output ("mit"), or the URL of the provider's terms of use, or
    what they say about publishing it."""

    @model_validator(mode="after")
    def _sampling_does_not_name_the_limit_twice(self) -> "Endpoint":
        twice = {"model", "messages", "stream", "max_tokens", "max_completion_tokens"} & set(self.sampling.extra)
        if twice:
            raise ValueError(f"sampling.extra holds {sorted(twice)[0]!r}, which the client sets itself: remove it")
        return self
