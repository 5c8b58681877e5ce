"""The settings of training: what both stages learn from, how, and how the work is spread over processes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import RUNTIME, Positive, RuntimeCpus, RuntimePositive, RuntimeStr, Section
from pipeline.records import TrainStage


class Optimization(Section):
    """One stage of supervised fine-tuning."""

    max_length: Positive
    """Tokens in a packed sequence."""
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises; then it falls to a tenth along a cosine."""
    rows_per_step: Positive
    """Packed sequences in a global batch, whoever computes them."""
    max_examples: Positive | None = None
    """Use only so many examples (the first ones in the order of their ids)."""


class Rope(Section):
    """More positions than a model comes with: Qwen2.5-Math has 4,096, and a long thought needs 32,768 (open-r1: theta 300,000)."""

    positions: Positive
    theta: Annotated[float, Field(gt=0)]
    """The base of the rotary embedding."""


class Lora(Section):
    """Train low-rank additions to the linear layers (Hu et al. 2021) in place of all weights. They are merged at the end."""

    rank: Positive = 32
    alpha: Annotated[float, Field(gt=0)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Train(Section):
    """Stage 5: two stages of SFT, the second from the first one's weights."""

    model: str
    """A Hugging Face model folder (any URI), a hub name, or a `.gguf` file; `package://name/file` names
    a file inside an installed Python package."""
    rope: Rope | None = None
    on_too_long: Literal["drop", "refuse"] = "drop"
    """What happens to an example longer than `max_length`."""
    stage1: Optimization
    stage2: Optimization
    stage2_alone: bool = False
    """Train a model on stage 2 alone beside the others: what is stage 1 worth?"""
    seed: int = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the computation: bfloat16, but float32 on CPUs that lack it (`auto`). Master weights and optimizer are float32 in any case."""
    lora: Lora | None = None
    max_spike: Annotated[float, Field(gt=1), RUNTIME] = 3.0
    """The run stops where a loss is so many times the median of the last steps."""
    zero_stage: Annotated[Literal[0, 1, 2, 3], RUNTIME] = 2
    """What the workers share out: nothing, optimizer states (1), gradients too (2), weights too (3)."""
    offload: Annotated[Literal["cpu", "nvme"] | None, RUNTIME] = None
    """Keep optimizer states and master weights in CPU memory, or (with zero_stage 3) on the nodes' disks."""
    offload_weights: Annotated[bool, RUNTIME] = False
    """The weights too (zero_stage 3)."""
    nvme_folder: RuntimeStr = "/mnt/nvme"
    """A folder on a fast disk of each node, for `offload: nvme`."""
    activation_checkpointing: Annotated[bool, RUNTIME] = False
    micro_rows: RuntimePositive = 1
    """Packed sequences in one forward pass."""
    sequence_parallel: RuntimePositive = 1
    """So many workers share each sequence (Ulysses): for sequences too long for one. Must divide the attention heads."""
    workers: RuntimePositive = 1
    min_workers: Annotated[Positive | None, RUNTIME] = None
    """Go on with as few where the cluster has no more. Null: wait for all `workers`."""
    worker_cpus: RuntimeCpus = 1
    worker_gpus: Annotated[float, Field(ge=0), RUNTIME] = 0
    accelerator_type: Annotated[str | None, RUNTIME] = None
    """The GPU that workers ask for, by Ray's name (H100, A100-80G). Null: any."""
    checkpoint_every: RuntimePositive = 50
    """Steps between checkpoints: the most a crash can cost."""
    keep_checkpoints: RuntimePositive = 2
    max_failures: Annotated[int, Field(ge=0), RUNTIME] = 3
    """How many lost workers the run survives. Nodes that are taken away with notice are not counted."""
    trackers: Annotated[tuple[Literal["mlflow", "wandb"], ...], RUNTIME] = ()
    """Where the figures go beside TensorBoard. Each must be installed, and is set up by its own environment variables."""

    def optimization(self, stage: TrainStage) -> Optimization:
        """How a stage is trained."""
        return self.stage1 if stage == "stage1" else self.stage2

    @property
    def stages(self) -> tuple[TrainStage, ...]:
        """What is trained, in order."""
        return ("stage1", "stage2", "stage2_alone") if self.stage2_alone else ("stage1", "stage2")

    @model_validator(mode="after")
    def _every_worker_has_work(self) -> "Train":
        fewest = self.min_workers or self.workers
        if fewest > self.workers:
            raise ValueError(f"min_workers is {fewest}, more than workers, {self.workers}: lower it")
        for name, count in (("workers", self.workers), ("min_workers", fewest)):
            if count % self.sequence_parallel:
                raise ValueError(
                    f"{name} is {count}, no multiple of sequence_parallel, {self.sequence_parallel}: change one of them"
                )
        readers = self.workers // self.sequence_parallel
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            if stage.rows_per_step < readers * self.micro_rows:
                raise ValueError(
                    f"{name}.rows_per_step is {stage.rows_per_step}, fewer than workers / sequence_parallel x micro_rows = "
                    f"{readers * self.micro_rows}, so that some would be idle: raise it, or lower one of them"
                )
        return self

    @model_validator(mode="after")
    def _sequences_can_be_shared(self) -> "Train":
        if self.sequence_parallel > 1 and self.zero_stage < 2:
            raise ValueError(
                f"sequence_parallel is {self.sequence_parallel}, but zero_stage is {self.zero_stage}: set zero_stage to 2 or 3"
            )
        if self.sequence_parallel > 1 and self.min_workers:
            raise ValueError("min_workers is set, but any number between would have to share sequences: leave it out")
        return self

    @model_validator(mode="after")
    def _checkpoints_can_be_shared_out_anew(self) -> "Train":
        if self.min_workers and self.zero_stage == 0:
            raise ValueError(
                "min_workers is set, but zero_stage is 0, whose checkpoints are for one number of workers: set it to 1"
            )
        return self

    @model_validator(mode="after")
    def _attention_knows_the_type(self) -> "Train":
        if self.worker_gpus and self.dtype == "float32":
            raise ValueError(
                "dtype is float32, but attention over packed sequences on a GPU is for bfloat16: set dtype to it"
            )
        return self

    @model_validator(mode="after")
    def _offload_fits_the_zero_stage(self) -> "Train":
        if self.dtype != "float32" and self.zero_stage == 0:
            raise ValueError(
                "zero_stage is 0, which keeps no float32 weights beside bfloat16 ones: set zero_stage to 1, or dtype to float32"
            )
        if self.offload and self.zero_stage == 0:
            raise ValueError("offload is set, but zero_stage is 0: set zero_stage to 1, 2 or 3")
        if self.zero_stage != 3 and (self.offload == "nvme" or self.offload_weights):
            what = "offload_weights" if self.offload_weights else "offload nvme"
            raise ValueError(f"{what} is set, but zero_stage is {self.zero_stage}: set zero_stage to 3")
        return self
