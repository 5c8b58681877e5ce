"""A stage is complete when its manifest stands, is never redone, and never silently differs from its config."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import REPO

from pipeline import storage
from pipeline.config import Config
from pipeline.errors import ConfigError, DataError, InvariantError
from pipeline.records import Rejected, Verdict
from pipeline.stage import StageFolder, StageRun, git_revision, model_place, root_of
from pipeline.storage import Place


@pytest.fixture
def tree(demo_tree: dict[str, Any], place: Place) -> dict[str, Any]:
    demo_tree["storage"] = {"root": place.uri, "endpoint": place.endpoint}
    return demo_tree


def make(tree: dict[str, Any], **sections: dict[str, Any]) -> Config:
    return Config.model_validate({**tree, **{name: {**tree.get(name, {}), **new} for name, new in sections.items()}})


def rejects(*reasons: str) -> list[Rejected]:
    return [Rejected(str(i), "curate", reason, "d", "{}") for i, reason in enumerate(reasons)]  # type: ignore[arg-type]


def test_a_complete_stage_is_skipped_and_tells_what_it_did(tree: dict[str, Any]) -> None:
    run = StageRun(make(tree), "curate")
    assert run.complete is None
    run.reject(rejects("proof", "duplicate", "proof"))
    made = run.finish(rows_in=10, rows_out=7, tables={"problems": 7}, requests=3)
    again = StageRun(make(tree), "curate")
    assert again.complete == made
    assert (made.rejected, made.tables) == ({"duplicate": 1, "proof": 2}, {"problems": 7, "rejected": 3})
    assert [row.reason for row in storage.read_rows(run.folder.table("rejected"), Rejected)] == [
        "duplicate",
        "proof",
        "proof",
    ]
    assert (run.root / "config.yaml").exists()


def test_a_stop_leaves_word_in_a_stage_that_is_under_way_and_in_none_that_is_complete(tree: dict[str, Any]) -> None:
    run = StageRun(make(tree), "curate")
    word = run.folder.place / "interrupted.json"
    run.folder.interrupt()
    assert json.loads(word.read())["stage"] == "curate"
    run.finish(rows_in=0, rows_out=0, tables={})
    StageRun(make(tree), "curate").folder.interrupt()
    assert not word.exists()


def test_a_stage_with_another_number_of_workers_is_the_same_stage(tree: dict[str, Any]) -> None:
    StageRun(make(tree), "curate").finish(rows_in=1, rows_out=1, tables={})
    StageRun(make(tree), "distill", inputs=("curate",)).finish(rows_in=1, rows_out=1, tables={})
    assert StageRun(make(tree, distill={"actors": 9}), "distill", inputs=("curate",)).complete


def test_a_changed_setting_is_refused_by_name(tree: dict[str, Any]) -> None:
    StageRun(make(tree), "distill").finish(rows_in=0, rows_out=0, tables={})
    with pytest.raises(ConfigError) as caught:
        StageRun(make(tree, distill={"keep": 2}), "distill")
    message = str(caught.value)
    assert message.startswith(
        "3_distill was made with distill.keep = 1, now it is 2: use another storage.root, or delete "
    )
    assert message.count("manifest.json") == 1 and "\n" not in message


def test_a_setting_that_is_new_is_refused_by_name(tree: dict[str, Any]) -> None:
    StageRun(make(tree), "curate").finish(rows_in=0, rows_out=0, tables={})
    second = {"name": "t", "path": "more.jsonl", "license": "MIT"}
    with pytest.raises(ConfigError, match=r"curate\.sources\.1\.\w+.* = 'not set', now it is"):
        StageRun(make(tree, curate={"sources": [*tree["curate"]["sources"], second]}), "curate")


def test_a_stage_made_from_another_input_is_refused(tree: dict[str, Any]) -> None:
    StageRun(make(tree), "curate").finish(rows_in=0, rows_out=0, tables={})
    StageRun(make(tree), "verify", inputs=("curate",)).finish(rows_in=0, rows_out=0, tables={})
    manifest = StageFolder(root_of(make(tree)), "curate").place / "manifest.json"
    manifest.delete()
    StageRun(make(tree), "curate").finish(rows_in=0, rows_out=0, tables={})
    with pytest.raises(ConfigError, match="4_verify was made from another content of curate"):
        StageRun(make(tree), "verify", inputs=("curate",))


def test_a_stage_whose_input_is_not_complete_says_what_to_run(tree: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="is not complete: run `longthought curate` first"):
        StageRun(make(tree), "distill", inputs=("curate",))


@pytest.mark.parametrize(("rows_in", "rows_out", "dropped"), [(5, 4, 0), (5, 4, 2), (0, 1, 0), (3, 0, 2)])
def test_no_manifest_where_a_row_vanished(tree: dict[str, Any], rows_in: int, rows_out: int, dropped: int) -> None:
    run = StageRun(make(tree), "curate")
    run.reject(rejects(*["proof"] * dropped))
    with pytest.raises(InvariantError, match=f"curate: {rows_in} rows in, but {rows_out} out and {dropped} rejected"):
        run.finish(rows_in=rows_in, rows_out=rows_out, tables={})
    assert StageRun(make(tree), "curate").complete is None


KILLED = """
import json, os, signal, sys
from pipeline import storage
from pipeline.config import Config
from pipeline.records import Verdict
from pipeline.stage import StageRun
run = StageRun(Config.model_validate(json.loads(sys.argv[1])), "curate")
storage.write_rows(run.folder.table("problems"), Verdict, [Verdict("1", "symbolic", "correct", None, "number", 0.1)])
run.reject([])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_stage_killed_before_its_end_is_not_complete(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    demo_tree["storage"] = {"root": str(tmp_path)}
    child = subprocess.run([sys.executable, "-c", KILLED, json.dumps(demo_tree)], cwd=REPO)
    assert child.returncode == -9
    run = StageRun(make(demo_tree), "curate")
    assert run.complete is None
    assert len(storage.read_rows(run.folder.table("problems"), Verdict)) == 1


def test_a_missing_bucket_stops_a_run_before_any_work(demo_tree: dict[str, Any], s3_endpoint: str) -> None:
    demo_tree["storage"] = {"root": "s3://no-such-bucket/run", "endpoint": s3_endpoint}
    with pytest.raises(DataError, match="check bucket, credentials and endpoint"):
        StageRun(make(demo_tree), "curate")


@pytest.mark.parametrize("name", ["base", "stage1"])
def test_a_runs_models_have_places(name: str, tree: dict[str, Any], place: Place) -> None:
    found = model_place(make(tree), name)
    assert found == ("some/model" if name == "base" else (place / "5_train" / "models" / "stage1").uri)
    unpacked = model_place(make(tree, train={"model": "package://x/m.gguf"}), "base")
    assert unpacked == (place / "5_train" / "models" / "base").uri


def test_the_commit_of_the_code_is_known_in_a_checkout_of_anybodys_and_told_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTHOUGHT_REVISION", "told")
    monkeypatch.setattr("pipeline.stage.__file__", str(tmp_path / "pipeline/stage.py"))
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "code").write_text("1")
    assert git_revision() == "told"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "code"], ["commit", "-q", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert git_revision() == head[:12]
    (tmp_path / "code").write_text("2")
    assert git_revision() == f"{head[:12]}+"
    if os.getuid() == 0:
        os.chown(tmp_path, 1234, 1234)
        assert git_revision() == f"{head[:12]}+"
