"""The objective is that of the global batch, whoever computes it; a resumed run is the unbroken one.

All variants run side by side in two groups of real processes (one worker, two workers), once.
"""

import os
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError
from pipeline.records import PackedRow, to_table
from pipeline.train import data, loop

pytestmark = pytest.mark.train

EPOCHS = 4

UNEVEN = {"rows": 11, "epochs": 3, "rows_per_step": 8}
"""Leaves one row for the last step, so that a second worker has none."""


def rows_of(max_length: int) -> list[PackedRow]:
    tokenizer = tiny.tokenizer()
    return data.pack([data.tokenize(example, tokenizer) for example in tiny.examples(30)], max_length)


class Keeper(loop.Caller):
    """Keeps checkpoints in a folder all ranks share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, done, write):
        write(self.folder / str(done))


def train(
    *,
    max_length=200,
    rows=None,
    rows_per_step=4,
    epochs=EPOCHS,
    dtype=torch.float32,
    resume_from=None,
    keep=None,
    learning_rate=3e-3,
    **options,
):
    """Losses of all steps and the flattened weights at the end (on rank 0)."""
    world_size = dist.get_world_size()
    optimization = Optimization(epochs=epochs, learning_rate=learning_rate, warmup=0.1, rows_per_step=rows_per_step)
    settings = Train(
        model="tiny", max_length=max_length, stage1=optimization, stage2=optimization, workers=world_size, **options
    )
    table = to_table(PackedRow, rows_of(max_length)[:rows])
    plan = data.Schedule(table, rows_per_step=rows_per_step, epochs=epochs, seed=0)
    caller = Keeper(keep) if keep else None
    trained = loop.train(
        "stage1", settings, tiny.model().to(dtype), plan, resume_from=resume_from, caller=caller, dtype=dtype
    )
    weights = trained.state_dict and torch.cat([value.flatten().float() for value in trained.state_dict.values()])
    return {
        "losses": [step.loss for step in trained.steps],
        "norms": [s.grad_norm for s in trained.steps],
        "weights": weights,
    }


def variants(world_size: int, folder: Path):
    """Name and result of each variant; one after the other, in the processes at hand."""
    if world_size == 1:
        yield "zero1", train(zero_stage=1)
        yield "zero2", train(zero_stage=2)
        yield "all rows in one pass", train(zero_stage=2, micro_rows=4)
        yield "checkpointed activations", train(zero_stage=2, activation_checkpointing=True)
        whole = {"epochs": 6, "zero_stage": 2}
        yield "packed", train(rows_per_step=len(rows_of(200)), **whole)
        yield "one example a row", train(max_length=100, rows_per_step=len(rows_of(100)), **whole)
    else:
        for stage in (1, 2, 3):
            yield f"zero{stage}", train(zero_stage=stage)
        yield "uneven", train(zero_stage=3, **UNEVEN)
    for stage in (1, 3):
        kept = folder / f"kept-{world_size}-{stage}"
        options = {"zero_stage": stage, "dtype": torch.bfloat16, "checkpoint_every": 5}
        yield f"bf16 zero{stage}", train(keep=kept, **options)
        yield f"bf16 zero{stage} resumed", train(resume_from=kept / "5", **options)
    if world_size == 1:
        yield "uneven", train(zero_stage=2, **UNEVEN)
        try:
            train(resume_from=folder / "kept-1-1" / "5", zero_stage=2, dtype=torch.bfloat16)
        except ConfigError as error:
            yield "refusal", str(error)
        try:
            train(zero_stage=2, learning_rate=1e38)
        except ConfigError as error:
            yield "divergence", str(error)


def worker(rank: int, world_size: int, folder: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), DS_ACCELERATOR="cpu")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # unused, but DeepSpeed wants them
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{world_size}"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = dict(variants(world_size, folder))
    if rank == 0:
        torch.save(results, folder / f"results-{world_size}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    groups = [mp.spawn(worker, (size, folder), nprocs=size, join=False) for size in (1, 2)]
    for group in groups:
        while not group.join():
            pass
    return {size: torch.load(folder / f"results-{size}", weights_only=False) for size in (1, 2)}


def assert_same(one, other, rtol=1e-4):
    start = torch.cat([value.flatten() for value in tiny.model().state_dict().values()])
    assert one["losses"] == pytest.approx(other["losses"], rel=rtol)
    assert one["norms"] == pytest.approx(other["norms"], rel=10 * rtol)
    moved = (one["weights"] - start[: len(one["weights"])]).norm()
    assert (one["weights"] - other["weights"]).norm() <= 1e-2 * moved


def test_it_learns(results):
    losses = results[1]["zero2"]["losses"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_workers_train_as_one(results, stage):
    assert_same(results[1]["zero2"], results[2][f"zero{stage}"])


@pytest.mark.parametrize("name", ["zero1", "all rows in one pass", "checkpointed activations"])
def test_how_it_is_computed_changes_nothing(results, name):
    assert_same(results[1]["zero2"], results[1][name])


def test_packed_trains_as_unpacked(results):
    assert len(rows_of(100)) > len(rows_of(200))
    assert_same(results[1]["packed"], results[1]["one example a row"])


def test_a_last_step_with_too_few_rows_for_all_ranks_is_exact_too(results):
    assert UNEVEN["rows"] * UNEVEN["epochs"] % UNEVEN["rows_per_step"] == 1
    assert_same(results[1]["uneven"], results[2]["uneven"])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", [1, 3])
def test_a_resumed_run_is_the_unbroken_one(results, world_size, stage):
    unbroken, resumed = results[world_size][f"bf16 zero{stage}"], results[world_size][f"bf16 zero{stage} resumed"]
    assert unbroken["losses"] == resumed["losses"]
    assert torch.equal(unbroken["weights"], resumed["weights"])
    assert unbroken["losses"][-1] < 0.9 * unbroken["losses"][0]


def test_a_checkpoint_of_another_setting_is_refused_in_one_line(results):
    assert "train.zero_stage=1" in results[1]["refusal"] and "train.zero_stage=2" in results[1]["refusal"]
    assert "\n" not in results[1]["refusal"]


def test_a_training_that_diverges_says_so_and_what_to_lower(results):
    said = results[1]["divergence"]
    assert "stage1 diverged" in said and "train.stage1.learning_rate (now 1e+38)" in said and "\n" not in said
