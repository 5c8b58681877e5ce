"""The type that a model computes in."""

import pytest

from pipeline import precision


@pytest.mark.parametrize(
    ("dtype", "gpus", "multiplies", "computed"),
    [
        ("auto", 0, True, "bfloat16"),
        ("auto", 0, False, "float32"),
        ("auto", 1, False, "bfloat16"),
        ("bfloat16", 0, False, "bfloat16"),
        ("float32", 0, True, "float32"),
    ],
)
def test_a_cpu_that_would_emulate_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, dtype: str, gpus: int, multiplies: bool, computed: str
) -> None:
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: multiplies)
    assert precision.computed(dtype, gpus) == computed


def test_torch_says_what_this_cpu_multiplies() -> None:
    assert precision.computed("auto", 0) in ("bfloat16", "float32")
