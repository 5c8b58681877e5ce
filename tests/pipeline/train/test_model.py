"""Models in and out: what is found, what is refused, more positions."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny
import torch

from pipeline.config import Rope
from pipeline.errors import ConfigError, DataError
from pipeline.storage import Place
from pipeline.train import marker, model


def test_a_sequence_beyond_the_models_positions_is_refused_naming_the_fix():
    with pytest.raises(
        ConfigError,
        match=r"beyond the 512 positions of 'm': set train\.stage1\.max_length to at most 512, or train\.rope",
    ):
        model.check_positions("train.stage1.max_length", 513, tiny.model().config, "m")


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


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no config\.json"):
        model.find(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(DataError, match="holds no weights"):
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
