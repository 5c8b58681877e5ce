"""Low-rank additions to a model's linear layers (Hu et al. 2021): put in before training, merged into the weights after it.

In: a model, or its weights by name. Out: the model with few weights to train, or the weights of the model as it was.
"""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.config import Lora

BASE, DOWN, UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


def add(model: Any, settings: Lora) -> None:
    """Freeze the weights and put additions beside every linear layer but the head."""
    from peft import LoraConfig, inject_adapter_in_model

    head = model.get_output_embeddings()
    linear = [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=linear, bias="none"
    )
    inject_adapter_in_model(config, model)


def merged(weights: Mapping[str, torch.Tensor], settings: Lora) -> dict[str, torch.Tensor]:
    """The weights of the model as it was before, with the additions in them: those that are given are changed in place."""
    scale = settings.alpha / settings.rank
    for name, weight in weights.items():
        layer = name.removesuffix(BASE)
        if layer != name:
            addition = weights[layer + UP].float() @ weights[layer + DOWN].float()
            weight.copy_(weight.float() + scale * addition)
    return {
        name.replace(".base_layer.", "."): weight for name, weight in weights.items() if not name.endswith((DOWN, UP))
    }
