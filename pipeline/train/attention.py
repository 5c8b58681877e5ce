"""Attention that stays inside each example of a packed row.

In: queries, keys and values of a row, and where its examples end. Out: for each token what it takes from its own example,
up to itself. No mask of a whole row exists anywhere: on a GPU torch's flash attention for sequences of unequal length,
elsewhere one causal attention for each example. transformers finds it by `NAME`; what it needs to know of the row, `Bounds`,
passes through the model's forward as a keyword.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM

from pipeline.errors import ConfigError
from pipeline.train.model import rope_of

NAME = "longthought_packed"
BLOCK, LONGEST_IN_BLOCKS = 128, 1024
"""Queries of a block, and the longest example in tokens that is computed in blocks."""


@dataclass(frozen=True)
class Bounds:
    """The examples of a row: `lengths` in tokens, and where each one starts and ends, on the row's device."""

    lengths: tuple[int, ...]
    ends: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Bounds":
        """Of examples of these lengths. `ends` begins with 0."""
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        return cls(tuple(lengths), ends)


def check(config: Any, name: str, longest: int) -> None:
    """Refuse a model that attends in another way than this, in sequences of so many tokens. Raises ConfigError."""
    text = config.get_text_config()
    made_by = AutoModelForCausalLM._model_mapping.get(type(config), None)
    window = getattr(text, "sliding_window", None) or longest
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    rope = rope_of(text).get("rope_type", "default")
    problems = {
        f"layers of {', '.join(sorted(kinds))}": kinds,
        f"attention that transformers cannot replace in a {config.model_type}": not (
            made_by and getattr(made_by, "_supports_attention_backend", False)
        ),
        f"attention over the last {window} tokens alone": window < longest,
        f"positions ({rope}) that depend on the whole row": rope in ("longrope", "dynamic"),
        "capped attention scores": getattr(text, "attn_logit_softcapping", None),
        "dropout in attention": getattr(text, "attention_dropout", 0),
    }
    if found := next((what for what, is_there in problems.items() if is_there), None):
        raise ConfigError(
            f"train.model is {name!r}, which has {found}: give a model with full attention, as Llama or Qwen2.5 have"
        )


def packed_attention(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    bounds: Bounds,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it. Query (1, heads, tokens, size), key and value (1, key heads, tokens, size).

    Returns (1, tokens, heads, size).
    """
    assert attention_mask is None and query.shape[0] == 1
    # What `check` has refused, and what it cannot see in a config.
    assert not any(more.get(name) for name in ("dropout", "softcap")) and more.get("s_aux") is None, list(more)
    if query.is_cuda:
        query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
        return _flash(query, key, value, bounds, scaling)[None], None
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    attended = []
    for q, k, v in zip(*(torch.split(each, list(bounds.lengths), dim=2) for each in (query, key, value)), strict=True):
        attend = _in_blocks if q.shape[2] <= LONGEST_IN_BLOCKS else _sdpa
        attended.append(attend(q, k, v, scaling))
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: Bounds, scaling: float | None) -> Any:
    """Query, key and value (tokens, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    longest, causal = max(bounds.lengths), (-1, 0)
    grouped: dict[str, Any] = {"enable_gqa": True}
    if "enable_gqa" not in signature(varlen_attn).parameters:  # before torch 2.12
        grouped, copies = {}, query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    return varlen_attn(
        query, key, value, bounds.ends, bounds.ends, longest, longest, scale=scaling, window_size=causal, **grouped
    )


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)


def _in_blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Blocks of queries against all that stands before them, as matrix products: on a CPU twice as fast as torch's own, whose
    backward pass is slow there. Keeps the weights for that pass, so it is for short examples.
    """
    _, heads, tokens, size = query.shape
    key, value = key[0], value[0]
    grouped = (query[0] * scaling).view(len(key), heads // len(key), tokens, size)
    parts = []
    for start in range(0, tokens, BLOCK):
        block = grouped[:, :, start : start + BLOCK]
        shape, end = block.shape, start + block.shape[2]
        later = _band(query.dtype)[: shape[2], LONGEST_IN_BLOCKS - start :][:, :end]
        scores = torch.bmm(block.flatten(1, 2), key[:, :end].transpose(1, 2)).view(*shape[:3], end)
        weights = torch.softmax(scores + later, -1).flatten(1, 2)
        parts.append(torch.bmm(weights, value[:, :end]).view(shape))
    return torch.cat(parts, dim=2).view(query.shape)


@cache
def _band(dtype: torch.dtype) -> torch.Tensor:
    """Minus infinity above a diagonal. The masks of all blocks are windows of it. (`BLOCK`, `LONGEST_IN_BLOCKS` + `BLOCK`)."""
    return torch.full((BLOCK, LONGEST_IN_BLOCKS + BLOCK), -torch.inf, dtype=dtype).triu_(LONGEST_IN_BLOCKS + 1)


AttentionInterface.register(NAME, packed_attention)
