"""How much memory a worker of a training needs at its fullest moment, by what takes it.

In: a model's shape and the settings of training. Out: `Memory`. The formula, whose terms are those of Rajbhandari et al. 2020
(ZeRO, section 3) for what the weights need, and for activations a count of what the backward pass keeps of each operation of
a Llama-like layer; the same for a GPU (bytes that torch allocates) and a CPU worker (bytes of the whole process).
"""

from dataclasses import dataclass

from pipeline import precision
from pipeline.config import Optimization, Train
from pipeline.plan.shapes import Shape

SLICE_BYTES = 1 << 28
"""Logits that the loss holds at a time, as float32 (`pipeline.train.objective`)."""
BUCKET = 500_000_000
"""Gradients that ZeRO 2 and 3 collect before they send them (DeepSpeed's reduce_bucket_size)."""
SUB_GROUP = 1_000_000_000
"""Weights that ZeRO-3's optimizer updates at a time (DeepSpeed's sub_group_size)."""
BLOCK_SHARE = 0.55
"""Of the square of an example's length, what causal attention in blocks keeps: a half, and the edges of the blocks."""
TRANSIENT = 5
"""Tensors of the size of a layer's widest that live for a moment in its backward pass."""
PROCESS = 0.9e9
"""A CPU worker without a model: Python, its libraries, and what they keep."""


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: float
    """As they compute: of ZeRO-3 a part, and the two layers at work."""
    optimizer: float
    """float32 masters of the weights, and Adam's two moments."""
    gradients: float
    """As they add up, and those that are on their way to the other workers."""
    activations: float
    """What the backward pass needs of the forward pass."""
    loss: float
    """The head's slices of logits, and its gradients."""
    step: float
    """The gradients once more, in a row for the optimizer: when activations and loss are gone."""
    process: float
    """Of a CPU worker, what it takes without a model."""

    @property
    def total(self) -> float:
        """Bytes at the fullest moment: in the backward pass, or in the optimizer's step."""
        always = self.weights + self.optimizer + self.gradients + self.process
        return always + max(self.activations + self.loss, self.step)


def weight_bytes(settings: Train) -> int:
    """Of a weight as it computes, and as a trained model is exported."""
    return 4 if precision.computed(settings.dtype, settings.worker_gpus) == "float32" else 2


def of_training(shape: Shape, settings: Train, stage: Optimization, *, mean_length: float | None = None) -> Memory:
    """Of one worker in a stage. `mean_length`: tokens of an example, where it is known; else a sequence is one example."""
    on_gpu, width = settings.worker_gpus > 0, weight_bytes(settings)
    zero, shared = settings.zero_stage, settings.workers
    learned = _learned(shape, settings)
    tokens = settings.micro_rows * stage.max_length / settings.sequence_parallel
    length = min(mean_length or stage.max_length, stage.max_length)

    weights: float = width * shape.weights
    if zero == 3:
        layer_at_work = max(shape.layer_weights, shape.head_weights)
        weights = (0 if settings.offload_weights else weights / shared) + 2 * width * layer_at_work
    states = (12 if width == 2 or zero else 8) * learned / (shared if zero else 1)
    elsewhere = settings.offload is not None and on_gpu  # in CPU memory, where the optimizer is
    kept = (width if zero == 0 else 4) * learned / (1 if zero <= 1 else shared)
    sent = width * min(learned, BUCKET) if zero >= 2 else 0
    stepped = 4 * min(learned / shared, SUB_GROUP if zero == 3 else learned) if zero else 0
    return Memory(
        weights=weights,
        optimizer=0 if elsewhere else states,
        gradients=(0 if elsewhere else kept) + sent,
        activations=_activations(shape, tokens, length, width, on_gpu=on_gpu, again=settings.activation_checkpointing),
        loss=_loss(shape, tokens, width, learned, on_gpu=on_gpu),
        step=0 if elsewhere else stepped,
        process=0 if on_gpu else PROCESS,
    )


def _learned(shape: Shape, settings: Train) -> float:
    """How many weights are trained."""
    if settings.lora is None:
        return shape.weights
    return float(settings.lora.rank * shape.layers * shape.layer_sides)


def _activations(shape: Shape, tokens: float, length: float, width: int, *, on_gpu: bool, again: bool) -> float:
    """Kept of a layer for each token: by its two norms the input and the output; by attention query, keys, values and what comes
    out; by the MLP gate, up, and their product. On a CPU, without Liger's kernels, by the norms a float32 and a normed input too,
    by attention the weights of short examples, by the MLP the gate's silu.
    """
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    norms = 2 * (2 * width if on_gpu else 4 + 2 * width) * shape.hidden
    attention: float = width * (2 * queries + 2 * keys)
    if not on_gpu:
        attention += width * shape.heads * BLOCK_SHARE * length
    layer = tokens * (norms + attention + width * (3 if on_gpu else 4) * shape.intermediate)
    moment = TRANSIENT * tokens * width * shape.intermediate
    kept = tokens * width * shape.hidden * shape.layers + layer if again else layer * shape.layers
    return kept + moment


def _loss(shape: Shape, tokens: float, width: int, learned: float, *, on_gpu: bool) -> float:
    rows = min(tokens, SLICE_BYTES / 4 / shape.vocabulary)
    logits = rows * shape.vocabulary * (width + (8 if on_gpu else 0))
    of_head = shape.head_weights * (4 + width) if learned == shape.weights else 0
    return logits + of_head + 2 * tokens * width * shape.hidden
