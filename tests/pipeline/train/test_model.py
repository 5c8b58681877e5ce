"""Models in and out: what is found, what is refused, more positions."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny
import torch
from transformers import (
    BloomConfig,
    Gemma2Config,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from pipeline.config import Rope
from pipeline.errors import ConfigError, DataError
from pipeline.storage import Place
from pipeline.train import attention, marker, model


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LlamaConfig(attention_dropout=0.1), "dropout in attention"),
        (MistralConfig(sliding_window=4096), "attention over the last 4096 tokens alone"),
        (Gemma2Config(sliding_window=None), "capped attention scores"),
        (
            LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            r"positions \(dynamic\) that depend on the whole row",
        ),
        (BloomConfig(), "attention that transformers cannot replace in a bloom"),
        (Qwen3NextConfig(), "layers of linear_attention"),
    ],
)
def test_a_model_that_attends_otherwise_is_refused(config, said):
    with pytest.raises(ConfigError, match=said) as refusal:
        attention.check(config, "some/model", 4097)
    assert "\n" not in str(refusal.value)


def test_full_attention_and_wide_windows_are_accepted():
    for config in (LlamaConfig(), MistralConfig(sliding_window=4096), Qwen2Config(), Qwen3Config(), Phi3Config()):
        attention.check(config, "some/model", 4096)


def test_more_positions_leave_the_other_settings_of_the_embedding(tmp_path):
    config = GlmConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    config.save_pretrained(tmp_path)
    longer = model.load_config(model.Source("m", str(tmp_path)), Rope(positions=4096, theta=3e5))
    assert longer.rope_parameters["partial_rotary_factor"] == config.rope_parameters["partial_rotary_factor"] == 0.5


def test_weights_of_another_size_than_the_config_are_refused(tmp_path):
    tiny.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(DataError, match="cannot be loaded"):
        model.load_model(model.find(str(tmp_path)), torch.float32)


def test_settings_of_sampling_without_sampling_do_not_cost_the_export(tmp_path):
    base = tiny.model()
    base.generation_config.temperature = 0.6
    model.export(Place(str(tmp_path)), base, tiny.tokenizer(), marker.Made("r", []))
    told = json.loads((tmp_path / "generation_config.json").read_text())
    assert told["do_sample"] is True and told["temperature"] == 0.6


def test_an_exported_model_stops_at_the_end_of_turn_of_its_training(tmp_path):
    base = tiny.model()
    base.generation_config.eos_token_id = 5
    model.export(Place(str(tmp_path)), base, tiny.tokenizer(), marker.Made("r", []))
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [257, 5]


def test_a_model_gets_more_positions(tmp_path):
    source = model.find(tiny.save(tmp_path / "m"))
    longer = model.load_model(source, torch.float32, Rope(positions=4096, theta=300_000.0))
    model.export(Place(str(tmp_path / "longer")), longer, tiny.tokenizer(), marker.Made("r", []))
    found = model.load_config(model.find(str(tmp_path / "longer")))
    assert found.max_position_embeddings == 4096 and found.rope_parameters["rope_theta"] == 300_000.0
    inverse = longer.model.rotary_emb.inv_freq
    assert inverse[1] == pytest.approx(300_000.0 ** (-1 / len(inverse)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such/folder", "does not exist"),
        ("package://nosuchpackage/m.gguf", "no package 'nosuchpackage' is installed"),
        ("package://json/m.gguf", "holds no such .gguf file"),
        ("nothing.gguf", "which is no file"),
    ],
)
def test_a_model_that_is_none_is_refused_in_one_line(name, said):
    with pytest.raises(DataError, match=said) as refusal:
        model.find(name)
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_model_of_the_hub_that_is_pickles_alone_is_refused(monkeypatch):
    files = ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(model, "list_repo_files", lambda name: files)
    with pytest.raises(DataError, match=r"'someone/pickled', which holds no weights .*pickles, \*\.bin, are not read"):
        model.require_weights(model.find("someone/pickled"))
    files.append("model.safetensors")
    model.require_weights(model.find("someone/pickled"))
    monkeypatch.undo()
    model.require_weights(model.find("someone/a--b"))  # loading will say that this is no name


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no config\.json"):
        model.find(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickles")
    with pytest.raises(DataError, match=r"holds no weights .*pickles, \*\.bin, are not read"):
        model.find(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="cannot be loaded") as refusal:
        model.load_model(model.find(str(tmp_path)), torch.float32)
    assert "\n" not in str(refusal.value)


def test_a_remote_model_is_looked_at_without_its_weights(tmp_path):
    name = f"memory://models/{tmp_path.name}"
    for file in tiny_files(tmp_path):
        Place(f"{name}/{file.name}").write(file.read_bytes())
    Place(f"{name}/onnx/config.json").write(b"another model")
    found = model.find(name, weights=False)
    assert not list(Path(found.location).glob("*.safetensors"))
    assert model.load_config(found).num_hidden_layers == 2
    assert model.load_tokenizer(found).chat_template


def tiny_files(folder):
    tiny.save(folder / "model")
    return [file for file in (folder / "model").iterdir() if file.is_file()]


def test_a_hub_name_is_left_to_the_hub():
    assert dataclasses.asdict(model.find("org/model-1.5B")) == {
        "name": "org/model-1.5B",
        "location": "org/model-1.5B",
        "gguf_file": None,
    }
