"""The loss of a packed row, without ever holding its logits.

In: a causal language model and a row. Out: the sum of the losses of its target tokens. Logits are made for a slice of the
targets at a time, and turned into gradients at once (Hsu et al. 2024, Liger kernels, section 3.2; here for any device): the
backward pass has nothing left to compute for the head.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from pipeline.plan.memory import SLICE_BYTES

CACHED_ROWS = 32
"""Logits of so many targets stay in a CPU's cache from one operation to the next."""


class Student(nn.Module):
    """A model whose forward gives the loss."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        head = model.get_output_embeddings()
        config = model.config.get_text_config()
        scaled = any(
            getattr(config, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
        )
        self.plain_head = isinstance(head, nn.Linear) and head.bias is None and not scaled
        """Whether the logits are the hidden states times the head's weights, and nothing else."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        targets: torch.Tensor,
        labels: torch.Tensor,
        **more: Any,
    ) -> torch.Tensor:
        """The summed loss of a row: `input_ids` and `position_ids` (1, tokens), positions and labels of the targets (targets,)."""
        inputs = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False, **more}
        if not self.plain_head:
            logits = self.model(**inputs, logits_to_keep=targets).logits
            return cross_entropy(logits[0].float(), labels, reduction="sum")
        hidden = self.model.get_decoder()(**inputs).last_hidden_state[0]
        loss: torch.Tensor = SummedLoss.apply(  # type: ignore[no-untyped-call]
            hidden[targets], self.model.get_output_embeddings().weight, labels
        )
        return loss


class SummedLoss(torch.autograd.Function):
    """The summed cross entropy of hidden states (targets, size), head weights (vocabulary, size) and labels (targets,)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Computes the gradients too, where they are wanted."""
        learns = any(ctx.needs_input_grad[:2])
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        rows = max(1, SLICE_BYTES // (4 * weight.shape[0]))
        for start in range(0, len(labels), rows):
            part, wanted = hidden[start : start + rows], labels[start : start + rows, None]
            logits = part @ weight.t()
            blocks = CACHED_ROWS if logits.device.type == "cpu" else rows
            for some, which in zip(torch.split(logits, blocks), torch.split(wanted, blocks), strict=True):
                logs = torch.log_softmax(some, 1, dtype=torch.float32)
                loss -= logs.gather(1, which).sum()
                if learns:  # the logits give way to their gradients
                    some.copy_(logs.exp_().scatter_add_(1, which, logs.new_full(which.shape, -1)))
            if hidden_grad is not None:
                torch.mm(logits, weight, out=hidden_grad[start : start + rows])
            if weight_grad is not None:
                weight_grad += logits.t() @ part
        ctx.gradients = hidden_grad, weight_grad
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        """The gradients, scaled."""
        hidden, weight = ctx.gradients
        ctx.gradients = None  # the loss may live on, the head's gradient must not
        return (
            hidden if hidden is None else hidden.mul_(upstream),
            weight if weight is None else weight.mul_(upstream),
            None,
        )
