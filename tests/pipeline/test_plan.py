"""What a run will need: shapes, memory, hours, and what is refused."""

from typing import Any

import pytest

from pipeline.config import Train, load
from pipeline.errors import ConfigError
from pipeline.plan import memory, shapes, training
from pipeline.plan.devices import DEVICES, named
from pipeline.plan.training import Data

DATA = {"stage1": Data(10_000, 9_000), "stage2": Data(10_000, 9_000)}


def settings(max_length: int = 16_384, **options: Any) -> Train:
    stage = {"max_length": max_length, "epochs": 2, "learning_rate": 1e-5, "rows_per_step": 64}
    return Train.model_validate({"model": "m", "stage1": stage, "stage2": stage, "worker_gpus": 1, **options})


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("SmolLM2-135M", 0.1345), ("SmolLM2-360M", 0.362), ("SmolLM2-1.7B", 1.71), ("Qwen2.5-0.5B", 0.494), ("Qwen2.5-1.5B", 1.54),
        ("Qwen2.5-3B", 3.09), ("Qwen2.5-7B", 7.62), ("Qwen2.5-14B", 14.8), ("Qwen2.5-32B", 32.8), ("Qwen2.5-72B", 72.7),
        ("Llama-3.1-8B", 8.03), ("Llama-3.1-70B", 70.6),
    ],
)  # fmt: skip
def test_the_shapes_have_the_published_sizes(name, billions):
    assert shapes.KNOWN[name].weights == pytest.approx(billions * 1e9, rel=0.005)


def test_a_model_is_known_wherever_it_lies():
    assert shapes.known("s3://bucket/models/Qwen2.5-Math-72B-32k/") == shapes.KNOWN["Qwen2.5-Math-72B"]
    assert shapes.known("Qwen/Qwen2.5-7B-Instruct") == shapes.KNOWN["Qwen2.5-7B"]
    assert shapes.known("acme/unheard-of") is None


def test_a_config_has_the_shape_that_is_built_in():
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True,
    )  # fmt: skip
    assert shapes.of_config(config) == shapes.KNOWN["Qwen2.5-1.5B"]


def test_what_is_no_dense_decoder_is_refused():
    from transformers import BloomConfig, Qwen2MoeConfig

    for config, said in ((Qwen2MoeConfig(), "sets num_experts"), (BloomConfig(), "has no intermediate_size")):
        with pytest.raises(ConfigError, match=said):
            shapes.of_config(config)


def test_a_sequence_beyond_the_models_positions_is_refused_naming_the_fix():
    shape = shapes.KNOWN["Qwen2.5-Math-1.5B"]
    said = r"beyond the 4096 positions of 'm': set train\.stage1\.max_length to at most 4096, or train\.rope"
    with pytest.raises(ConfigError, match=said):
        training.of_run(settings(), shape, DEVICES["H200"], DATA)
    training.of_run(settings(rope={"positions": 32_768, "theta": 3e5}), shape, DEVICES["H200"], DATA)


def test_operations_are_six_for_each_weight_and_token_and_attention():
    shape = shapes.KNOWN["Qwen2.5-1.5B"]
    assert shape.operations(1, 0, 1) == 6 * shape.weights
    assert shape.operations(0, 1, 0) == 6 * 28 * 1536


def test_the_weights_states_are_those_of_the_zero_paper():
    """Rajbhandari et al. 2020, figure 1: 7.5 B weights, 64 workers; here gradients add up in float32, and the moment is Adam's."""
    shape = shapes.KNOWN["Qwen2.5-7B"]
    one, shared = (
        memory.of_training(shape, settings(workers=64, zero_stage=stage), settings().stage1) for stage in (1, 3)
    )
    assert one.weights == 2 * shape.weights
    assert one.optimizer == pytest.approx(12 * shape.weights / 64)
    assert shared.weights < 0.2 * one.weights


def test_72b_fits_on_32_gpus_of_80_gb():
    config = load("configs/paper_72b.yaml").train
    shape = shapes.known(config.model)
    assert config.workers * config.worker_gpus == 32 and shape is not None
    plans = training.of_run(config, shape, DEVICES["H100"], DATA)
    assert [plan.stage for plan in plans] == ["stage1", "stage2"]
    for plan in plans:
        assert 40e9 < plan.memory.total < 0.92 * 80e9
        assert plan.hours is not None and 1 < plan.hours < 10


def test_what_cannot_fit_is_refused_with_what_mends_it():
    shape, told = shapes.KNOWN["Qwen2.5-1.5B"], settings(32_768, workers=1, zero_stage=1)
    with pytest.raises(
        ConfigError, match=r"^train.stage1 needs 1\d\d\.\d GB of each GPU, and of its 80 GB at most 73.6"
    ) as refusal:
        training.of_run(told, shape, DEVICES["H100"], DATA)
    assert "set train.activation_checkpointing to true (" in str(refusal.value)
    mended = told.model_copy(update={"activation_checkpointing": True})
    assert len(training.of_run(mended, shape, DEVICES["H100"], DATA)) == 2


def test_what_no_setting_mends_is_said():
    with pytest.raises(ConfigError, match="it needs more GPUs, larger ones, or a lower max_length"):
        training.of_run(settings(zero_stage=1), shapes.KNOWN["Qwen2.5-72B"], DEVICES["H100"], DATA)


def test_the_fewest_workers_must_suffice_too():
    told = settings(workers=32, min_workers=8, zero_stage=3, activation_checkpointing=True)
    with pytest.raises(ConfigError, match=r"with train\.min_workers = 8"):
        training.of_run(told, shapes.KNOWN["Qwen2.5-72B"], DEVICES["H200"], DATA)


def test_lora_needs_less():
    shape = shapes.KNOWN["Qwen2.5-7B"]
    whole, low = settings(zero_stage=1), settings(zero_stage=1, lora={"rank": 16})
    needed = [memory.of_training(shape, each, each.stage1) for each in (whole, low)]
    assert needed[1].optimizer + needed[1].gradients < 0.02 * (needed[0].optimizer + needed[0].gradients)


def test_a_card_is_known_by_what_its_driver_calls_it():
    assert named("NVIDIA H100 80GB HBM3") == DEVICES["H100"]
    assert named("NVIDIA A100-SXM4-80GB") == DEVICES["A100"]
    assert named("Tesla T4") is None
