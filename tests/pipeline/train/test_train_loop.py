"""The objective is that of the global batch, whoever computes it; a resumed run is the unbroken one.

All variants run side by side in two groups of real processes (one worker, two workers), once.
"""

import os
import resource
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError, DataError
from pipeline.records import PackedRow
from pipeline.storage import Place, write_rows
from pipeline.train import conversations, engine, loop, model, packing, stage
from pipeline.train.job import StageJob
from pipeline.train.objective import Student
from pipeline.train.schedule import PackedTable, Schedule

pytestmark = pytest.mark.train

EPOCHS = 7
"""21 steps."""

KEPT = ((1, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "float32"), (3, "bfloat16"))
"""ZeRO stages and types whose runs are broken off."""

CONVERTED = ((1, 2, "float32"), (3, 3, "float32"), (1, 1, "bfloat16"), (2, 2, "bfloat16"), (3, 3, "bfloat16"))
"""ZeRO stages from which and to which a run goes on with fewer workers."""

UNEVEN = {"rows": 11, "epochs": 3, "rows_per_step": 8}
"""Leaves one row for the last step, so that a second worker has none."""


class MeanOfEachPass(Student):
    """The common mistake: each pass counts alike, however many targets it has."""

    def forward(self, *, labels, **inputs):
        return super().forward(labels=labels, **inputs) * (TYPICAL_TARGETS / len(labels))


TYPICAL_TARGETS = 100


def rows_of(max_length: int, *, alone: bool = False) -> list[PackedRow]:
    tokenizer = tiny.tokenizer()
    examples = [conversations.tokenize(example, tokenizer) for example in tiny.examples(30)]
    return packing.pack(examples, max_length) if not alone else [packing.pack([one], max_length)[0] for one in examples]


class Keeper(loop.Caller):
    """Keeps checkpoints in a folder all ranks share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, done, write):
        write(self.folder / str(done))
        return True


class Leaver(Keeper):
    """Its node is taken away after three steps; keeps the checkpoint of that moment alone."""

    done = heard = 0

    def stepped(self, step):
        self.done = step.step + 1

    def leaving(self):
        self.heard = self.done if self.done == 3 else self.heard
        return self.done == 3

    def save(self, done, write):
        return done == self.heard and super().save(done, write)


class FullDisk(Keeper):
    """From the second checkpoint on a rank may write no file of more than a few bytes."""

    rank = 1

    def save(self, done, write):
        if done > 5 and dist.get_rank() == self.rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            return super().save(done, write)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class FullDiskOfTheFirst(FullDisk):
    rank = 0


def train(
    folder,
    *,
    max_length=200,
    rows=None,
    alone=False,
    rows_per_step=4,
    epochs=EPOCHS,
    dtype="float32",
    resume_from=None,
    keep=None,
    keeper=Keeper,
    learning_rate=3e-3,
    adapters=None,
    weights="tied",
    weight_decay=0.1,
    recipe="a",
    export=None,
    **options,
):
    """Losses of all steps and the flattened weights at the end (on rank 0); or where `export` says so the whole stage."""
    table = folder / f"rows-{dist.get_world_size()}-{max_length}-{rows}-{alone}"
    if dist.get_rank() == 0 and not table.exists():
        write_rows(Place(str(table)), PackedRow, rows_of(max_length, alone=alone)[:rows])
    dist.barrier()
    optimization = Optimization(
        max_length=max_length, epochs=epochs, learning_rate=learning_rate, warmup=0.1, rows_per_step=rows_per_step
    )
    settings = Train(
        model="tiny", weight_decay=weight_decay, stage1=optimization, stage2=optimization, workers=dist.get_world_size(), dtype=dtype,
        lora=adapters, **options,
    )  # fmt: skip
    if export:
        target = Place(str(folder / export))
        return stage.run(
            StageJob("stage1", settings, str(folder / weights), Place(str(table)), target, "r"), loop.Caller()
        )
    plan = Schedule(PackedTable(table), rows_per_step=rows_per_step, epochs=epochs, seed=0)
    torch.manual_seed(0)
    student = engine.load(model.find(str(folder / weights)), settings)
    behind = nullcontext(resume_from) if resume_from else None
    trained = loop.train(
        "stage1", settings, student, plan, recipe=recipe, resume_from=behind, caller=keeper(keep) if keep else None
    )
    final = trained.state_dict
    return {
        "losses": [step.loss for step in trained.steps],
        "norms": [s.grad_norm for s in trained.steps],
        "names": final and list(final),
        "weights": final and torch.cat([value.flatten().float() for value in final.values()]),
        "steps": trained.steps,
    }


def variants(world_size: int, folder: Path):
    """Name and result of each variant; one after the other, in the processes at hand."""
    if world_size == 1:
        for zero in (0, 1, 2):
            yield f"zero{zero}", train(folder, zero_stage=zero)
        yield "all rows in one pass", train(folder, zero_stage=2, micro_rows=4)
        yield "checkpointed activations", train(folder, zero_stage=2, activation_checkpointing=True)
        yield "offloaded", train(folder, zero_stage=2, offload="cpu")
        yield "weights offloaded", train(folder, zero_stage=3, offload="cpu", offload_weights=True)
        yield "left", train(folder, zero_stage=2, keep=folder / "left", keeper=Leaver)
        yield "left when due", train(folder, zero_stage=2, checkpoint_every=3, keep=folder / "due", keeper=Leaver)
        whole = {"epochs": 20, "zero_stage": 2}
        yield "packed", train(folder, rows_per_step=len(rows_of(200)), **whole)
        yield "one example a row", train(folder, alone=True, rows_per_step=len(tiny.examples(30)), **whole)
        yield "additions", train(folder, zero_stage=2, adapters={"rank": 8, "alpha": 32}, learning_rate=5e-3)
        with pytest.MonkeyPatch.context() as planted:
            planted.setattr("pipeline.train.engine.Student", MeanOfEachPass)
            for rows in (1, 4):
                yield f"planted, {rows} rows in a pass", train(folder, micro_rows=rows)
    else:
        for zero in (0, 1, 2, 3):
            yield f"zero{zero}", train(folder, zero_stage=zero)
        yield "uneven", train(folder, zero_stage=3, **UNEVEN)
        yield "head of its own", train(folder, zero_stage=3, weights="untied")
        adapted = {"zero_stage": 3, "adapters": {"rank": 8, "alpha": 32}, "learning_rate": 5e-3}
        yield "additions", train(folder, **adapted)
        yield "checkpointed activations", train(folder, zero_stage=3, activation_checkpointing=True)
        train(folder, export="exported", zero_stage=3)
        train(folder, export="exported additions", **adapted)
    for zero, dtype in KEPT:
        kept = folder / f"kept-{world_size}-{zero}-{dtype}"
        options = {"zero_stage": zero, "dtype": dtype, "checkpoint_every": 5}
        yield f"kept zero{zero} {dtype}", train(folder, keep=kept, **options)
        yield f"kept zero{zero} {dtype} resumed", train(folder, resume_from=kept / "5", **options)
    if world_size == 1:
        yield "uneven", train(folder, zero_stage=2, **UNEVEN)
        yield "head of its own", train(folder, zero_stage=2, weights="untied")
        for name, broken in (
            ("refusal", {"resume_from": folder / "kept-1-3-float32" / "5"}),
            (
                "another training",
                {"resume_from": folder / "kept-1-2-bfloat16" / "5", "dtype": "bfloat16", "recipe": "b"},
            ),
            ("divergence", {"learning_rate": 1e38}),
        ):
            try:
                train(folder, zero_stage=2, **broken)
            except ConfigError as error:
                yield name, str(error)
        while not (folder / "results-2").exists():
            time.sleep(0.1)
        for written, now, dtype in CONVERTED:
            again = {"zero_stage": now, "dtype": dtype, "resume_from": folder / f"kept-2-{written}-{dtype}" / "5"}
            yield f"from two workers and zero{written} to zero{now} in {dtype}", train(folder, **again)
    else:
        for disk in (FullDisk, FullDiskOfTheFirst):
            full = folder / disk.__name__
            try:
                train(folder, zero_stage=2, checkpoint_every=5, keep=full, keeper=disk)
            except DataError as error:
                yield disk.__name__, (str(error), [path.name for path in full.iterdir()])
        yield "after the full disk", train(folder, zero_stage=2, resume_from=full / "5")


def shared(world_size: int, folder: Path):
    """Two trainings with shared sequences, the second gone on from the first one's checkpoint: DeepSpeed allows a process one."""
    kept = folder / "shared"
    name, behind = ("sequence shared resumed", kept / "5") if kept.exists() else ("sequence shared", None)
    yield name, train(folder, zero_stage=3, sequence_parallel=2, checkpoint_every=5, keep=kept, resume_from=behind)


def alone(world_size: int, folder: Path):
    """The same gone on from by one worker."""
    del world_size
    yield "from a shared sequence to a worker alone", train(folder, zero_stage=3, resume_from=folder / "shared" / "5")


def worker(rank: int, name: str, world_size: int, folder: Path, variants) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), DS_ACCELERATOR="cpu")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # unused, but DeepSpeed wants them
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{name}"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = dict(variants(world_size, folder))
    if rank == 0:
        torch.save(results, folder / f"results-{name}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    tiny.save(folder / "tied")
    tiny.save(folder / "untied", tied=False)
    run(folder, ("1", 1, variants), ("2", 2, variants))
    run(folder, ("shared", 2, shared))
    run(folder, ("again", 2, shared), ("alone", 1, alone))
    found = {path.name: torch.load(path, weights_only=False) for path in folder.glob("results-*")}
    one, two = (("1", "alone"), ("2", "shared", "again"))
    return {"folder": folder} | {
        size: {name: result for part in parts for name, result in found[f"results-{part}"].items()}
        for size, parts in ((1, one), (2, two))
    }


def run(folder: Path, *groups) -> None:
    """Groups of processes, side by side. A failure of one ends all."""
    started = [mp.spawn(worker, (name, size, folder, of), nprocs=size, join=False) for name, size, of in groups]
    try:
        while not all([group.join(timeout=0.1) for group in started]):  # noqa: C419 - each must be asked
            pass
    finally:
        for process in (process for group in started for process in group.processes):
            process.kill()


def assert_same(one, other, rtol=1e-4, **shape):
    start = torch.cat([value.flatten() for _, value in tiny.model(**shape).named_parameters()])
    assert one["losses"] == pytest.approx(other["losses"], rel=rtol)
    assert one["norms"] == pytest.approx(other["norms"], rel=10 * rtol)
    moved = (one["weights"] - start[: len(one["weights"])]).norm()
    assert (one["weights"] - other["weights"]).norm() <= 1e-2 * moved


def test_it_learns(results):
    losses = results[1]["zero2"]["losses"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_train_as_one(results, stage):
    assert_same(results[1]["zero2"], results[2][f"zero{stage}"])


@pytest.mark.parametrize(
    "name", ["zero0", "zero1", "all rows in one pass", "checkpointed activations", "offloaded", "weights offloaded"]
)
def test_how_it_is_computed_changes_nothing(results, name):
    assert_same(results[1]["zero2"], results[1][name])


def test_weights_shared_out_and_activations_computed_again_change_nothing(results):
    assert_same(results[2]["zero3"], results[2]["checkpointed activations"])


@pytest.mark.parametrize(("exported", "trained"), [("exported", "zero3"), ("exported additions", "additions")])
def test_what_is_exported_is_what_was_trained(results, exported, trained):
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(results["folder"] / exported)
    assert torch.equal(torch.cat([each.flatten() for each in loaded.parameters()]), results[2][trained]["weights"])


@pytest.mark.parametrize("kept", ["left", "due"])
def test_a_node_that_is_taken_away_leaves_a_checkpoint(results, kept):
    assert [path.name for path in (results["folder"] / kept).iterdir()] == ["3"]


def test_packed_trains_as_unpacked(results):
    assert len(rows_of(200)) < len(rows_of(200, alone=True)) == 30
    losses = results[1]["packed"]["losses"]
    assert len(losses) == 20 and losses[-1] < 0.9 * losses[0]
    assert_same(results[1]["packed"], results[1]["one example a row"])


def test_a_last_step_with_too_few_rows_for_all_ranks_is_exact_too(results):
    assert UNEVEN["rows"] * UNEVEN["epochs"] % UNEVEN["rows_per_step"] == 1
    assert_same(results[1]["uneven"], results[2]["uneven"])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("stage", "dtype"), KEPT)
def test_a_resumed_run_is_the_unbroken_one(results, world_size, stage, dtype):
    unbroken, resumed = (results[world_size][f"kept zero{stage} {dtype}{more}"] for more in ("", " resumed"))
    assert unbroken["losses"] == resumed["losses"]
    assert torch.equal(unbroken["weights"], resumed["weights"])
    assert unbroken["losses"][-1] < 0.9 * unbroken["losses"][0]


@pytest.mark.parametrize(("written", "now", "dtype"), CONVERTED)
def test_a_run_goes_on_with_fewer_workers_and_another_zero_stage(results, written, now, dtype):
    unbroken = results[2][f"kept zero{written} {dtype}"]
    resumed = results[1][f"from two workers and zero{written} to zero{now} in {dtype}"]
    assert resumed["losses"] == pytest.approx(unbroken["losses"], rel=1e-3 if dtype == "float32" else 2e-2)
    assert resumed["losses"][:5] == unbroken["losses"][:5], "the steps behind it come with the checkpoint"


def test_a_head_of_its_own_is_trained_too(results):
    one, two = (results[size]["head of its own"] for size in (1, 2))
    assert one["names"][-1] == "lm_head.weight"
    assert_same(one, two, tied=False)


def test_sharing_a_sequence_changes_nothing(results):
    assert_same(results[1]["zero2"], results[2]["sequence shared"])
    unbroken = results[2]["sequence shared"]["losses"]
    assert unbroken == results[2]["sequence shared resumed"]["losses"]
    assert unbroken == pytest.approx(results[1]["from a shared sequence to a worker alone"]["losses"], rel=1e-3)


def test_additions_are_trained_and_merged(results):
    one, two = results[1]["additions"], results[2]["additions"]
    assert one["names"] == results[1]["zero2"]["names"]
    assert one["losses"][-1] < 0.9 * one["losses"][0]
    assert_same(one, two)


def test_a_mean_of_each_pass_would_be_found(results):
    one, other = (results[1][f"planted, {rows} rows in a pass"] for rows in (1, 4))
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_the_figures_of_a_step_are_told(results):
    for step in results[2]["zero2"]["steps"][1:]:
        assert 0.5 < step.fill <= 1 and step.memory > 1e8 and step.mfu is None
        assert 0 < step.forward_s + step.backward_s + step.optimizer_s + step.data_s <= step.seconds


def test_a_checkpoint_of_another_setting_is_refused_in_one_line(results):
    assert "train.zero_stage=3" in results[1]["refusal"] and "train.zero_stage=2" in results[1]["refusal"]
    assert "\n" not in results[1]["refusal"]


def test_a_checkpoint_of_another_training_is_refused(results):
    assert "is of another training (stage, model, rows or settings)" in results[1]["another training"]


@pytest.mark.parametrize("whose", ["FullDisk", "FullDiskOfTheFirst"])
def test_a_full_disk_leaves_the_last_good_checkpoint(results, whose):
    said, left = results[2][whose]
    assert "the checkpoint after step 10 cannot be written" in said
    assert (
        "free some space and run again; the checkpoint after step 5 is the last good one" in said and "\n" not in said
    )
    assert left == ["5"]
    assert results[2]["after the full disk"]["losses"] == results[2]["zero2"]["losses"]


def test_a_training_that_diverges_says_so_and_what_to_lower(results):
    said = results[1]["divergence"]
    assert "stage1 diverged at step" in said and "train.stage1.learning_rate (now 1e+38)" in said and "\n" not in said
