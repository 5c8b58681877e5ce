"""Where the figures of training can be watched."""

import sys
from types import SimpleNamespace

import pytest
from board import scalars

from pipeline.errors import ConfigError
from pipeline.records import Step
from pipeline.storage import Place
from pipeline.train import trackers
from pipeline.train.trackers import Trackers


def step(number: int, **figures) -> Step:
    zero = dict.fromkeys(("data_s", "forward_s", "backward_s", "optimizer_s", "checkpoint_s", "upload_s"), 0.0)
    told = {"loss": 2.0, "grad_norm": 0.5, "learning_rate": 1e-5, "fill": 0.9, "mfu": None, "memory": 1, "seconds": 2.0}
    return Step(stage="stage2", step=number, tokens=400, target_tokens=100, **{**zero, **told, **figures})


def test_tensorboard_shows_every_figure_of_every_step(tmp_path):
    told = Trackers(tmp_path, (), "run", {})
    for number in range(3):
        told.step(step(number, loss=3.0 - number))
    told.close()
    board = scalars(Place(str(tmp_path)))
    assert board["stage2/loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert {"stage2/tokens_per_s", "stage2/upload_s", "stage2/grad_norm"} <= set(board)
    assert "stage2/mfu" not in board, "it is not known on a CPU"
    assert board["stage2/target_tokens_per_s"][0] == (0, 50.0)


def test_others_are_told_the_same(tmp_path, monkeypatch):
    calls = []

    def noting(name):
        return lambda *given, **named: calls.append((name, given, named))

    wandb = SimpleNamespace(log=noting("wandb.log"), finish=noting("wandb.finish"))
    names = ("start_run", "log_params", "log_metrics", "end_run")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**{name: noting(name) for name in names}))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: wandb))
    told = Trackers(tmp_path, ("mlflow", "wandb"), "run", {"workers": 2})
    told.step(step(7))
    told.close()
    by_name = {name: (given, named) for name, given, named in calls}
    assert by_name["start_run"] == ((), {"run_name": "run"}) and by_name["log_params"] == (({"workers": 2},), {})
    (metrics,), named = by_name["log_metrics"]
    assert metrics["stage2.loss"] == 2.0 and named == {"step": 7}
    assert by_name["wandb.log"][0][0]["stage2/loss"] == 2.0
    assert {"end_run", "wandb.finish"} <= set(by_name)


def test_a_tracker_that_is_not_installed_is_refused():
    with pytest.raises(
        ConfigError, match=r"train\.trackers names 'nosuch', which is not installed: pip install nosuch"
    ):
        trackers.check(("nosuch",))
