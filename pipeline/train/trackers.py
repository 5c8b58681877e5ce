"""Where the figures of training can be watched: TensorBoard always, MLflow and Weights & Biases by config.

In: `Step`s as they are done. Out: event files in a folder, and calls of the libraries that the config names, which are set up
by their own environment variables.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.records import Step


def check(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"train.trackers names {name!r}, which is not installed: pip install {name}, or remove it"
            )


class Trackers:
    """Use on one rank; `close` at the end."""

    def __init__(self, folder: Path, names: Sequence[str], run: str, settings: dict[str, Any]) -> None:
        """`run` names what is trained, `settings` are shown beside it."""
        from tensorboardX import SummaryWriter

        self.folder = folder
        self._board = SummaryWriter(str(folder))
        self._mlflow = self._wandb = None
        if "mlflow" in names:
            self._mlflow = importlib.import_module("mlflow")
            self._mlflow.start_run(run_name=run)
            self._mlflow.log_params(settings)
        if "wandb" in names:
            self._wandb = importlib.import_module("wandb").init(name=run, config=settings, resume="allow", id=run)

    def step(self, step: Step) -> None:
        """A step is done."""
        figures = {
            name: value for name, value in asdict(step).items() if isinstance(value, int | float) and name != "step"
        }
        figures["tokens_per_s"] = step.tokens / step.seconds
        figures["target_tokens_per_s"] = step.target_tokens / step.seconds
        for name, value in figures.items():
            self._board.add_scalar(f"{step.stage}/{name}", value, step.step)
        if self._mlflow is not None:
            self._mlflow.log_metrics({f"{step.stage}.{name}": value for name, value in figures.items()}, step=step.step)
        if self._wandb is not None:
            self._wandb.log({f"{step.stage}/{name}": value for name, value in figures.items()})

    def flush(self) -> None:
        """Have everything in the folder."""
        self._board.flush()

    def close(self) -> None:
        """The training is over."""
        self._board.close()
        if self._mlflow is not None:
            self._mlflow.end_run()
        if self._wandb is not None:
            self._wandb.finish()
