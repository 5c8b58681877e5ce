"""DeepSpeed around a model: who holds what part of it, in which type, with which optimizer.

In: a model and the settings. Out: an engine whose forward gives a row's summed loss. Nothing is compiled on first use: a
node needs no C++ compiler and no nvcc.
"""

import contextlib
import importlib.util
import io
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError
from pipeline.plan import shapes
from pipeline.train import attention, lora
from pipeline.train.model import Source, load_model
from pipeline.train.objective import Student


def load(source: Source, settings: Train) -> Any:
    """The model to be trained, with LoRA's additions where they are asked for.

    With ZeRO-3 every rank holds its part alone from the start, so that a model may be larger than any one's memory.
    """
    with _shared_out(settings) if settings.zero_stage == 3 else contextlib.nullcontext():
        model = load_model(source, getattr(torch, settings.dtype), settings.rope)
    if settings.worker_gpus and importlib.util.find_spec("liger_kernel"):
        _with_liger(model)
    if settings.lora:
        torch.manual_seed(settings.seed)
        lora.add(model, settings.lora)
    return model


def check(settings: Train) -> None:
    """Refuse a node that lacks what the settings ask for. Raises ConfigError."""
    if settings.offload != "nvme":
        return
    folder = Path(settings.nvme_folder)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigError(f"train.nvme_folder is {str(folder)!r}, which is no folder that can be written: name one")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ConfigError(
            "train.offload is nvme, but DeepSpeed's async_io lacks libaio here: install libaio-dev and a compiler"
        )


def _with_liger(model: Any) -> None:
    """Norms, rotary embedding and MLPs by Liger's kernels (Hsu et al. 2024); models that it does not know stay as they are."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)


@contextlib.contextmanager
def _shared_out(settings: Train) -> Iterator[None]:
    """transformers looks for such a config while it loads, and keeps no more than a weak reference to it."""
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    chosen = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": _zero(settings), "bf16": _bf16(settings)}
    config = HfDeepSpeedConfig(chosen)
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config


def prepare(settings: Train, optimization: Optimization, model: Any, passes: int, *, universal: bool) -> Any:
    """The engine of a run that makes so many forward passes for a step. `universal`: it goes on from such a checkpoint."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its shared-memory reduction would be compiled with the machine's C++ compiler on first use.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    model.config._attn_implementation = attention.NAME
    deepspeed.init_distributed(dist_init_required=False)  # it takes the group of processes that is there
    groups = _sequence_groups(settings, model)
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parameters = [
        {"params": [each for each in learned if _dimensions(each) > 1], "weight_decay": settings.weight_decay},
        # Norms and biases are not shrunk.
        {"params": [each for each in learned if _dimensions(each) <= 1], "weight_decay": 0.0},
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints memory figures at any log level
        engine, *_ = deepspeed.initialize(
            model=Student(model),
            model_parameters=[group for group in parameters if group["params"]],
            config=_settings(settings, optimization, passes, universal=universal),
            dist_init_required=False,
            mpu=groups,
        )
    # Beside each checkpoint it puts a script of its own, on one rank alone, which a full disk would end there.
    engine._copy_recovery_script = lambda _: None
    return engine


def _dimensions(parameter: Any) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves an empty one


def averaged_over(settings: Train) -> int:
    """Over how many ranks DeepSpeed takes the mean of the gradients: those that read, but with ZeRO-3 all."""
    return dist.get_world_size() if settings.zero_stage == 3 else readers_of(settings)


def readers_of(settings: Train) -> int:
    """How many groups of ranks read rows of their own: a group shares each sequence."""
    return dist.get_world_size() // settings.sequence_parallel


def _sequence_groups(settings: Train, model: Any) -> Any:
    """DeepSpeed's Ulysses: the ranks of a group hold parts of a sequence, and in attention parts of the heads."""
    parts = settings.sequence_parallel
    if parts == 1:
        return None
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    shape = shapes.of_config(model.config)
    if not shape.can_share(parts):
        raise ConfigError(
            f"train.sequence_parallel is {parts}, but {settings.model!r} has {shape.heads} attention heads and {shape.key_heads} for "
            "keys and values: it must divide the first, and divide the others or be a multiple of them"
        )
    return UlyssesSPAttentionHF.register_with_transformers(
        model, core_attn_implementation=attention.NAME, sequence_parallel_size=parts, micro_batch_size=1
    )


def _settings(settings: Train, optimization: Optimization, passes: int, *, universal: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        # Rows are counted by the loop: these are only to agree with one another.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": passes,
        "train_batch_size": passes * readers_of(settings),
        "zero_optimization": _zero(settings),
        "zero_force_ds_cpu_optimizer": False,
        "bf16": _bf16(settings),
        # Sums of many bf16 gradients lose the small ones.
        "data_types": {"grad_accum_dtype": "fp32"},
        # torch's own Adam: DeepSpeed's would compile itself on first use.
        "optimizer": {"type": "AdamW", "params": {"lr": optimization.learning_rate, "torch_adam": True, "fused": True}},
        # DeepSpeed clips at 1.0 where this is not set.
        "gradient_clipping": settings.max_grad_norm,
        "steps_per_print": None,
        "checkpoint": {"load_universal": universal},
    }
    if settings.sequence_parallel > 1:
        chosen["sequence_parallel_size"] = settings.sequence_parallel
    return chosen


def _zero(settings: Train) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload:
        zero["offload_optimizer"] = _offload(settings)
    if settings.offload_weights:
        zero["offload_param"] = _offload(settings)
    return zero


def _bf16(settings: Train) -> dict[str, Any]:
    return {"enabled": settings.dtype == "bfloat16"}


def _offload(settings: Train) -> dict[str, Any]:
    there = {"device": "nvme", "nvme_path": settings.nvme_folder} if settings.offload == "nvme" else {"device": "cpu"}
    return {**there, "pin_memory": settings.worker_gpus > 0}


def step(engine: Any) -> float:
    """Take the optimizer's step where all passes are made; returns the norm of the gradient then, else 0."""
    if not engine.is_gradient_accumulation_boundary():
        engine.step()
        return 0.0
    norm = None
    if engine.zero_optimization_stage() == 0:  # it tells no norm, and forgets the gradients
        norm = torch.nn.utils.get_total_norm(each.grad for each in engine.module.parameters() if each.grad is not None)
    engine.step()
    told = float(engine.get_global_grad_norm() or norm or 0.0)
    return told if told >= 0 else math.nan  # DeepSpeed says -1 where it is no number


def full_weights(engine: Any, zero_stage: int) -> dict[str, torch.Tensor] | None:
    """The model's whole weights in CPU memory, on rank 0 only; the ranks must call this together."""
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in engine.module.model.named_parameters():
        # ZeRO-3 holds a part of each parameter on each rank: gather one at a time, so that a rank never holds all.
        gathered = deepspeed.zero.GatheredParameters(parameter) if zero_stage == 3 else contextlib.nullcontext()
        with gathered:
            if dist.get_rank() == 0:
                weights[name] = parameter.data.detach().to("cpu", copy=True)
    return weights or None
