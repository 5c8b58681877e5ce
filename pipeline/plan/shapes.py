"""The shapes of models: what their size in memory and their operations follow from.

In: a model's name or its transformers config. Out: a `Shape`. Those of well-known models are built in (their config.json on
the Hugging Face hub), so that a plan needs no network.
"""

from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated MLPs, as Llama, Qwen2 and their like are. `positions` are the model's own."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    positions: int

    def can_share(self, parts: int) -> bool:
        """Whether so many workers can share a sequence (Ulysses): each must get heads, of queries and of keys."""
        return self.heads % parts == 0 and (self.key_heads % parts == 0 or parts % self.key_heads == 0)

    @property
    def layer_sides(self) -> int:
        """Inputs and outputs of a layer's matrices together: so many weights has each rank of LoRA."""
        queries, keys = self.head_size * self.heads, self.head_size * self.key_heads
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        return attention + 3 * (self.hidden + self.intermediate)

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of a layer."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.key_heads)
        return attention + 3 * self.hidden * self.intermediate

    def operations(self, tokens: float, squares: float, targets: float) -> float:
        """Floating-point operations of training, forward and backward (Narayanan et al. 2021, appendix; Chowdhery et al. 2022,
        appendix B), without those that recomputation adds.

        Of so many tokens, the sum of the squares of their examples' lengths, and target tokens. Counted is what the mathematics
        asks for: two for each weight and token, times three with the backward pass; attention over half of each example's
        square; and the head for target tokens only.
        """
        attention = self.layers * self.heads * self.head_size * squares
        return 6.0 * (self.layers * self.layer_weights * tokens + self.head_weights * targets + attention)

    @property
    def head_weights(self) -> int:
        """Weights of the head."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """All weights; norms and biases, which are less than a thousandth, left out."""
        return self.layers * self.layer_weights + (1 if self.tied else 2) * self.head_weights


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
NEEDED = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "max_position_embeddings",
)  # fmt: skip
"""What a transformers config calls them."""


def of_config(config: Any) -> Shape:
    """The shape that a transformers config describes. Raises ConfigError where it is none of these."""
    text = config.get_text_config()
    experts = next((name for name in EXPERTS if getattr(text, name, None)), None)
    missing = next((name for name in NEEDED if getattr(text, name, None) is None), None)
    if experts or missing:
        why = f"its config sets {experts}" if experts else f"its config has no {missing}"
        raise ConfigError(
            f"a {text.model_type} is no dense decoder ({why}): set train.model to one, as Llama, Qwen2 or Mistral are"
        )
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        key_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        positions=text.max_position_embeddings,
    )


KNOWN: dict[str, Shape] = {
    "SmolLM2-135M": Shape(30, 576, 1536, 9, 3, 64, 49_152, True, 8_192),
    "SmolLM2-360M": Shape(32, 960, 2560, 15, 5, 64, 49_152, True, 8_192),
    "SmolLM2-1.7B": Shape(24, 2048, 8192, 32, 32, 64, 49_152, True, 8_192),
    "Qwen2.5-0.5B": Shape(24, 896, 4864, 14, 2, 64, 151_936, True, 32_768),
    "Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936, True, 32_768),
    "Qwen2.5-3B": Shape(36, 2048, 11_008, 16, 2, 128, 151_936, True, 32_768),
    "Qwen2.5-7B": Shape(28, 3584, 18_944, 28, 4, 128, 152_064, False, 32_768),
    "Qwen2.5-14B": Shape(48, 5120, 13_824, 40, 8, 128, 152_064, False, 32_768),
    "Qwen2.5-32B": Shape(64, 5120, 27_648, 40, 8, 128, 152_064, False, 32_768),
    "Qwen2.5-72B": Shape(80, 8192, 29_568, 64, 8, 128, 152_064, False, 32_768),
    "Qwen2.5-Math-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936, True, 4_096),
    "Qwen2.5-Math-7B": Shape(28, 3584, 18_944, 28, 4, 128, 152_064, False, 4_096),
    "Qwen2.5-Math-72B": Shape(80, 8192, 29_568, 64, 8, 128, 152_064, False, 4_096),
    "Llama-3.1-8B": Shape(32, 4096, 14_336, 32, 8, 128, 128_256, False, 131_072),
    "Llama-3.1-70B": Shape(80, 8192, 28_672, 64, 8, 128, 128_256, False, 131_072),
}


def known(name: str) -> Shape | None:
    """The shape of a model by its name, wherever it lies: the last part of a path or hub name that begins with a known one."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    fitting = [each for each in KNOWN if last.startswith(each.lower())]
    return KNOWN[max(fitting, key=len)] if fitting else None


def check_positions(setting: str, length: int, positions: int, name: str) -> None:
    """Refuse sequences longer than a model's positions. `setting` is the name of what asks for so many tokens."""
    if length > positions:
        raise ConfigError(
            f"{setting} is {length}, beyond the {positions} positions of {name!r}: set {setting} to at most {positions}, or "
            f"train.rope to {{positions: {length}, theta: ...}} (300,000 for 32,768 positions of a Qwen2.5-Math)"
        )
