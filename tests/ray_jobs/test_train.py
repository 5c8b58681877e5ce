"""Stage `train` on a real Ray: two stages, two workers, and what happens when a worker or the driver is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import small
import yaml

sys.path.append(str(Path(__file__).parents[1] / "pipeline" / "train"))

from local_servers import SlowLine

from pipeline.config import Config
from pipeline.errors import ConfigError, DataError, ResourceError, StoppedError
from pipeline.records import Example, Message, PackedRow, Rejected, Step
from pipeline.stage import Manifest, StageFolder, StageRun, model_place, root_of
from pipeline.storage import Place, read_rows, write_rows
from pipeline.train import marker
from ray_jobs import stopping
from ray_jobs.train import OUR_LIST, RAYS_LIST, _require_workers

pytestmark = [pytest.mark.ray, pytest.mark.train]

EXAMPLES, TOO_LONG, UNCHOSEN = 24, 1, 3
STEPS_BEFORE_CHECKPOINT = 8


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    import tiny

    return tiny.save(tmp_path_factory.mktemp("tiny"))


def settings(
    root: Path | str, model: str, max_length: int = 200, epochs: int = 12, endpoint: str | None = None, **train: Any
) -> dict[str, Any]:
    stage = {"max_length": max_length, "learning_rate": 3e-3, "rows_per_step": 4}
    none = {"model": "none", "base_url": "http://127.0.0.1:9/v1", "sampling": {"max_tokens": 1}}
    return {
        "storage": {"root": str(root), "endpoint": endpoint},
        "cluster": {"wait_s": 5},
        "rewriter": none,
        "teacher": none,
        "curate": {"sources": [{"name": "none", "path": "none.jsonl", "license": "unknown"}]},
        "train": {
            "model": model,
            "stage1": {**stage, "epochs": epochs},
            "stage2": {**stage, "epochs": 2, "max_examples": EXAMPLES - UNCHOSEN},
            "workers": 2,
            "worker_cpus": 0.5,
            "dtype": "float32",
            "checkpoint_every": STEPS_BEFORE_CHECKPOINT,
            **train,
        },
        "serve": {"max_model_len": 256},
        "evaluate": {"benchmarks": [{"name": "none", "path": "none.jsonl"}], "budgets": [8]},
    }


def prepare(root: Path | str, model: str, **train: Any) -> Config:
    """A run whose `reformat` and `verify` are complete."""
    import tiny

    config = Config.model_validate(settings(root, model, **train))
    folders = {name: StageFolder(root_of(config), name) for name in ("curate", "distill", "reformat", "verify")}
    for name in ("curate", "distill"):
        StageRun(config, name).finish(rows_in=0, rows_out=0, tables={})
    for name, stage, inputs in (("reformat", "stage1", ("curate",)), ("verify", "stage2", ("curate", "distill"))):
        examples = tiny.examples(EXAMPLES, stage)
        if stage == "stage1":
            endless = [Message("user", "?"), Message("assistant", "long " * 60)]
            examples.append(Example("9999", "stage1", "p", "", endless))
        write_rows(folders[name].table("examples"), Example, examples)
        StageRun(config, name, inputs=inputs).finish(rows_in=len(examples), rows_out=len(examples), tables={})
    return config


def train(config: Config) -> Manifest:
    from ray_jobs.train import run

    return run(config)


def steps_of(config: Config) -> dict[str, list[Step]]:
    steps = read_rows(StageFolder(root_of(config), "train").table("steps"), Step)
    by_stage = {stage: [step for step in steps if step.stage == stage] for stage in ("stage1", "stage2")}
    for of_stage in by_stage.values():
        assert [step.step for step in of_stage] == list(range(len(of_stage))), "a step is missing or twice there"
    return by_stage


def losses(config: Config) -> dict[str, list[float]]:
    return {stage: [step.loss for step in of_stage] for stage, of_stage in steps_of(config).items()}


def wait_for_checkpoint(root: Path, step: int = STEPS_BEFORE_CHECKPOINT, seconds: float = 150) -> None:
    """Until Ray Train has noted the first stage's checkpoint of a step, or of a later one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for snapshot in root.glob(f"5_train/checkpoints/stage1-*/{RAYS_LIST}"):
            if max(map(int, re.findall(r"step_(\d+)", snapshot.read_text())), default=0) >= step:
                return
        time.sleep(0.02)
    raise TimeoutError("no checkpoint")


def last_checkpoint(root: Path) -> list[Step]:
    """The steps behind the last checkpoint that is noted; Ray Train's own list of them is cut, as by a crash."""
    (folder,) = root.glob("5_train/checkpoints/stage1-*")
    name = json.loads((folder / OUR_LIST).read_text())["latest_checkpoint_result"]["checkpoint_dir_name"]
    rays = folder / RAYS_LIST
    rays.write_text(rays.read_text()[:100])
    return [Step(**step) for step in json.loads((folder / name / "longthought.json").read_text())["steps"]]


@pytest.fixture(scope="module")
def cluster(ray_cluster):
    return ray_cluster


@pytest.fixture(scope="module")
def unbroken(cluster, model_folder, tmp_path_factory) -> tuple[Config, Manifest]:
    config = prepare(tmp_path_factory.mktemp("unbroken"), model_folder)
    return config, train(config)


def test_both_stages_are_trained_exported_and_counted(unbroken):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, manifest = unbroken
    folder = StageFolder(root_of(config), "train")
    assert manifest.rows_in == 2 * EXAMPLES + TOO_LONG
    assert manifest.rejected == {"too_long": TOO_LONG, "not_selected": UNCHOSEN}
    assert manifest.rows_out == manifest.rows_in - TOO_LONG - UNCHOSEN
    assert manifest.ray_actors["RayTrainWorker"] >= 4
    rejected = read_rows(folder.table("rejected"), Rejected)
    assert {row.detail for row in rejected if row.reason == "too_long"} == {"321 tokens, max_length is 200"}
    assert sum(len(row.example_ids) for row in read_rows(folder.table("packed_stage1"), PackedRow)) == EXAMPLES
    curve = losses(config)
    assert curve["stage1"][-1] < 0.8 * curve["stage1"][0]
    assert curve["stage2"][0] < 0.8 * curve["stage1"][0], "stage 2 starts from the weights of stage 1"
    for name in ("stage1", "stage2"):
        place = model_place(config, name)
        assert AutoTokenizer.from_pretrained(place).chat_template
        assert AutoModelForCausalLM.from_pretrained(place).generation_config.eos_token_id == 257
    assert model_place(config, "base") == config.train.model
    assert not (folder.place / "checkpoints").exists()


def test_a_complete_stage_is_left_alone(unbroken):
    config, manifest = unbroken
    assert train(config) == manifest


def test_a_changed_setting_is_refused_naming_it(unbroken):
    config, _ = unbroken
    changed = Config.model_validate(settings(Path(config.storage.root), config.train.model, weight_decay=0.1))
    with pytest.raises(ConfigError, match=r"train\.weight_decay"):
        train(changed)


def test_stage_2_alone_is_added_to_a_finished_run_without_training_the_others_again(unbroken, tmp_path):
    finished, _ = unbroken
    root = shutil.copytree(finished.storage.root, tmp_path / "run")
    (root / "5_train/manifest.json").unlink()
    config = Config.model_validate(settings(root, finished.train.model, stage2_alone=True))
    train(config)
    assert steps_of(config) == steps_of(finished), "the same steps, to the second"
    table = StageFolder(root_of(config), "train").table("steps")
    alone = [step for step in read_rows(table, Step) if step.stage == "stage2_alone"]
    before, after = losses(finished)["stage1"][0], losses(finished)["stage2"][0]
    assert len(alone) == len(losses(finished)["stage2"])
    assert alone[0].loss == pytest.approx(before, rel=0.1) and alone[0].loss > 1.2 * after, "it starts from the base"
    made = marker.read(Place(model_place(config, "stage2_alone")))
    assert made is not None and made.steps == alone


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(unbroken, model_folder, tmp_path):
    import ray
    from ray.util.state import list_actors

    config = prepare(tmp_path, model_folder)
    address = ray.get_runtime_context().gcs_address
    alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    killed = []

    def kill_a_worker() -> None:
        wait_for_checkpoint(tmp_path)
        workers = list_actors(address, filters=alive)
        killed.append(max(workers, key=lambda worker: worker.pid).pid)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    train(config)
    killer.join()
    assert killed and StageFolder(root_of(config), "train").require().lost == {"actors": 1}
    assert losses(config) == losses(unbroken[0])


def test_the_users_mistakes_reach_the_driver(cluster, model_folder, tmp_path):
    config = prepare(tmp_path / "short", model_folder, max_length=20)
    with pytest.raises(DataError, match=r"stage1 has nothing to train on: of 25 examples of reformat none has at most"):
        train(config)
    config = prepare(tmp_path / "long", model_folder, max_length=4096)
    with pytest.raises(ConfigError, match="beyond the 512 positions"):
        train(config)
    config = prepare(tmp_path / "none", str(tmp_path))
    with pytest.raises(DataError, match=r"holds no config\.json"):
        train(config)


@pytest.mark.parametrize(
    "wanted, said",
    [
        ({"worker_gpus": 1, "dtype": "bfloat16"}, r"train needs 2 workers of 0.5 CPU and 1 GPU, .* 0 GPU"),
        ({"accelerator_type": "H100"}, r"train needs 2 workers of 0.5 CPU and 0 H100, .*accelerator_type"),
    ],
)
def test_gpus_the_cluster_lacks_are_said_in_time(cluster, model_folder, tmp_path, wanted, said):
    config = prepare(tmp_path, model_folder, **wanted)
    started = time.monotonic()
    with pytest.raises(ResourceError, match=said):
        _require_workers(config)
    assert time.monotonic() - started < 30


def test_a_stop_is_heard_while_nodes_are_waited_for(cluster, model_folder, tmp_path, monkeypatch):
    config = prepare(tmp_path, model_folder, worker_gpus=1, dtype="bfloat16")
    patient = config.model_copy(update={"cluster": config.cluster.model_copy(update={"wait_s": 600.0})})
    monkeypatch.setattr(stopping, "_asked", [])
    threading.Timer(3.0, stopping._asked.append, (signal.SIGTERM,)).start()
    with pytest.raises(StoppedError), stopping.ends_by(lambda: None):
        _require_workers(patient)


def test_a_half_written_model_does_not_look_complete(model_folder, tmp_path):
    import tiny
    import torch

    from pipeline.train import model

    target = Place(str(tmp_path / "model"))
    loaded = model.load_model(model.find(model_folder), torch.float32)
    model.export(target, loaded, tiny.tokenizer(), marker.Made("recipe", []))
    made = marker.read(target)
    assert (
        made is not None
        and made.recipe == "recipe"
        and made.check_ids[:5] == [256, *tiny.tokenizer()("user")["input_ids"]]
    )
    loaded.save_pretrained = lambda *_, **__: (_ for _ in ()).throw(OSError("no space left on device"))
    with pytest.raises(DataError, match=r"cannot be written to .* \(no space left on device\): free some space"):
        model.export(target, loaded, tiny.tokenizer(), marker.Made("recipe", []))
    assert marker.read(target) is None


@pytest.mark.slow
def test_storage_that_takes_no_checkpoint_is_said_in_one_line(cluster, model_folder, tmp_path):
    config = prepare(tmp_path, model_folder, max_failures=0)

    def block() -> None:
        while not (folders := list(tmp_path.glob("5_train/checkpoints/stage1-*"))):
            time.sleep(0.02)
        (folders[0] / f"step_{STEPS_BEFORE_CHECKPOINT:06d}_of_2").write_text("a file where the folder should be")

    blocker = threading.Thread(target=block)
    blocker.start()
    with pytest.raises(
        ResourceError, match=r"stage1 lost its workers more often .* by: cannot use .*step_000008_of_2"
    ) as told:
        train(config)
    blocker.join()
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_the_training_does_not_wait_for_slow_storage(s3, cluster, model_folder, tmp_path):
    line = SlowLine(int(s3.rpartition(":")[2]), bytes_per_s=1e6)
    root = f"s3://bucket/slow-{tmp_path.name}"
    config = prepare(root, model_folder, endpoint=s3, epochs=100, checkpoint_every=45)
    slow = config.model_copy(update={"storage": config.storage.model_copy(update={"endpoint": line.url})})
    train(slow)
    line.end()
    steps = steps_of(config)["stage1"]
    waited, uploads = sum(step.checkpoint_s for step in steps), [step.upload_s for step in steps if step.upload_s]
    print(f"{len(uploads)} checkpoints took {sum(uploads):.1f} s to storage; the training waited {waited:.2f} s")
    assert len(uploads) >= 3 and min(uploads) > 0.5
    assert waited < 0.25 * sum(uploads)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_worker_is_killed_then_the_driver_then_one_worker_goes_on(unbroken, model_folder, tmp_path):
    file = tmp_path / "config.yaml"
    code = "import sys; from pipeline.config import load; from ray_jobs.train import run; run(load(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(file)]
    environment = {**small.alone(), "PYTHONPATH": os.pathsep.join(sys.path)}
    config = prepare(tmp_path, model_folder, checkpoint_every=1)
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for_checkpoint(tmp_path, 7, seconds=300)
        children = psutil.Process(driver.pid).children(recursive=True)
        workers = [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]
        assert len(workers) == 2
        workers[1].kill()
        wait_for_checkpoint(tmp_path, 13, seconds=300)
    finally:
        driver.kill()
        driver.wait()
    noted = last_checkpoint(tmp_path)
    alone = config.model_copy(update={"train": config.train.model_copy(update={"workers": 1})})
    file.write_text(yaml.safe_dump(json.loads(alone.model_dump_json())))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, broken = steps_of(unbroken[0]), steps_of(alone)
    for stage in ("stage1", "stage2"):
        assert [step.loss for step in broken[stage]] == pytest.approx([step.loss for step in whole[stage]], rel=1e-3)
        assert [step.target_tokens for step in broken[stage]] == [step.target_tokens for step in whole[stage]]
    assert len(noted) >= 13
    assert broken["stage1"][: len(noted)] == noted, (
        "no step behind the checkpoint is trained again: its seconds are the same"
    )
