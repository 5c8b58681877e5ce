"""The ranks of a training compute in one type."""

from typing import Any

import pytest
import torch.distributed as dist

from pipeline import precision
from pipeline.config import Optimization, Train
from pipeline.train import stage


@pytest.mark.parametrize(("theirs", "settled"), [("bfloat16", "bfloat16"), ("float32", "float32")])
def test_one_cpu_that_lacks_bfloat16_settles_it_for_all(
    monkeypatch: pytest.MonkeyPatch, theirs: str, settled: str
) -> None:
    def gather(everyones: list[Any], mine: Any) -> None:
        everyones[:] = [mine, theirs]

    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    optimization = Optimization(max_length=8, epochs=1, learning_rate=1e-3, rows_per_step=2)
    settings = Train(model="tiny", stage1=optimization, stage2=optimization, workers=2)
    assert settings.dtype == "auto"
    assert stage._settled(settings) == settings.model_copy(update={"dtype": settled})
