"""Conversations become packed rows: what is learned, what is refused, and in which order rows are read."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.records import Example, Message, PackedRow, to_table
from pipeline.storage import Place
from pipeline.train import data, model


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def conversation(*turns: tuple[str, str]) -> Example:
    return Example("id", "stage1", "", "", [Message(role, content) for role, content in turns])


def learned(tokenized, tokenizer) -> str:
    return tokenizer.decode([id_ for id_, target in zip(tokenized.ids, tokenized.targets, strict=True) if target])


def test_only_the_assistant_turn_and_its_end_of_turn_token_are_learned(tokenizer):
    tokenized = data.tokenize(conversation(("user", "1+1?"), ("assistant", "It is 2.")), tokenizer)
    assert learned(tokenized, tokenizer) == "It is 2.<|im_end|>"
    assert tokenizer.decode(tokenized.ids) == (
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\nIt is 2.<|im_end|>"
    )


def test_every_assistant_turn_of_a_long_conversation_is_learned(tokenizer):
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    tokenized = data.tokenize(conversation(*turns), tokenizer)
    assert learned(tokenized, tokenizer) == "b<|im_end|>d<|im_end|>"


def test_the_prompt_has_the_ids_that_generation_will_see(tokenizer):
    tokenized = data.tokenize(conversation(("user", "1+1?"), ("assistant", "\n\n2")), tokenizer)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1?"}], add_generation_prompt=True, return_dict=False
    )
    assert tokenized.ids[: len(prompt)] == prompt
    assert not any(tokenized.targets[: len(prompt)])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}", "has no generation prompt"),
        (tiny.TEMPLATE.replace("'<|im_end|>\n'", "'\n'"), "lacks the end-of-turn token"),
        (
            tiny.TEMPLATE.replace("m['content']", "m['content'].split('</think>')[-1]"),
            "changes what the assistant says",
        ),
    ],
)
def test_an_unfit_template_is_refused_in_one_line(template, said):
    with pytest.raises(DataError, match=said) as refusal:
        data.check_template(tiny.tokenizer(template), 258, "some/model")
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer):
    with pytest.raises(DataError, match="has 258 tokens, its model 200"):
        data.check_template(tokenizer, 200, "some/model")


def test_an_example_without_an_assistant_turn_is_refused(tokenizer):
    with pytest.raises(DataError, match="'id' has no assistant turn"):
        data.tokenize(conversation(("user", "1+1?")), tokenizer)


def test_a_sequence_beyond_the_models_positions_is_refused_naming_the_fix():
    with pytest.raises(ConfigError, match=r"beyond the 512 positions of 'm': set train\.max_length to at most 512"):
        data.check_positions("train.max_length", 513, tiny.model().config, "m")


def test_packing_keeps_every_token_once_and_fills_rows(tokenizer):
    tokenized = [data.tokenize(example, tokenizer) for example in tiny.examples(60)]
    rows = data.pack(tokenized, 200)
    assert sum(row.examples for row in rows) == 60
    assert sum(len(row.input_ids) for row in rows) == sum(len(example.ids) for example in tokenized)
    assert sum(row.target_tokens for row in rows) == sum(sum(example.targets) for example in tokenized)
    assert all(len(row.input_ids) == len(row.position_ids) == len(row.labels) <= 200 for row in rows)
    assert sum(len(row.input_ids) for row in rows) / (200 * len(rows)) > 0.9
    assert data.pack(tokenized[::-1], 200) == rows


def test_labels_are_the_next_token_and_never_that_of_another_example(tokenizer):
    (row,) = data.pack([data.tokenize(example, tokenizer) for example in tiny.examples(3)], 512)
    ends = [index for index, position in enumerate(row.position_ids[1:]) if position == 0]
    assert len(ends) == 2
    for index, label in enumerate(row.labels):
        assert label == data.IGNORED or label == row.input_ids[index + 1]
        assert label == data.IGNORED or index not in ends


def test_no_attention_crosses_examples(tokenizer):
    tokenized = [data.tokenize(example, tokenizer) for example in tiny.examples(4)]
    (row,) = data.pack(tokenized, 512)
    network = tiny.model().eval()
    with torch.no_grad():
        ids, positions = torch.tensor([row.input_ids]), torch.tensor([row.position_ids])
        packed = network(ids, position_ids=positions, use_cache=False).logits[0]
        start = 0
        for example in sorted(tokenized, key=lambda example: (-len(example.ids), example.example_id)):
            alone = network(torch.tensor([example.ids])).logits[0]
            assert torch.allclose(packed[start : start + len(alone)], alone, atol=1e-4)
            start += len(alone)


def schedule(rows: int, rows_per_step: int, epochs: int, seed: int = 0) -> data.Schedule:
    packed = [PackedRow([index], [0], [index], index, 1) for index in range(rows)]
    return data.Schedule(to_table(PackedRow, packed), rows_per_step=rows_per_step, epochs=epochs, seed=seed)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_row_is_read_once_an_epoch_and_ranks_read_equally_many(world_size):
    plan = schedule(rows=10, rows_per_step=4, epochs=3)
    assert plan.steps == 8
    stream = []
    for step in range(plan.steps):
        ranks = [plan.rows(step, rank, world_size) for rank in range(world_size)]
        assert {len(rows) for rows in ranks} == {4 // world_size}
        step_rows = [row.input_ids[0] for rows in ranks for row in rows if row.examples]
        assert sorted(step_rows) == sorted(plan.indices(step))
        assert plan.tokens(step) == (len(step_rows), sum(step_rows))
        stream += plan.indices(step)
    for epoch in range(3):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert stream[:10] != stream[10:20]


def test_the_order_depends_on_the_seed_alone():
    assert schedule(10, 2, 2).indices(3) == schedule(10, 2, 2).indices(3)
    assert schedule(10, 10, 1, seed=1).indices(0) != schedule(10, 10, 1, seed=2).indices(0)


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
