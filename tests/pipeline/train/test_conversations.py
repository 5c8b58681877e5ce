"""Conversations become token ids: what is learned, and which templates are refused."""

import pytest
import tiny
from tokenizers.normalizers import Lowercase

from pipeline.errors import DataError
from pipeline.records import Example, Message
from pipeline.train import conversations


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def conversation(*turns: tuple[str, str]) -> Example:
    return Example("id", "stage1", "", "", [Message(role, content) for role, content in turns])


def learned(tokenized, tokenizer) -> str:
    return tokenizer.decode([id_ for id_, target in zip(tokenized.ids, tokenized.targets, strict=True) if target])


def test_only_the_assistant_turn_and_its_end_of_turn_token_are_learned(tokenizer):
    tokenized = conversations.tokenize(conversation(("user", "1+1?"), ("assistant", "It is 2.")), tokenizer)
    assert learned(tokenized, tokenizer) == "It is 2.<|im_end|>"
    assert tokenizer.decode(tokenized.ids) == (
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\nIt is 2.<|im_end|>"
    )


def test_every_assistant_turn_of_a_long_conversation_is_learned(tokenizer):
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    tokenized = conversations.tokenize(conversation(*turns), tokenizer)
    assert learned(tokenized, tokenizer) == "b<|im_end|>d<|im_end|>"


def test_the_prompt_has_the_ids_that_generation_will_see(tokenizer):
    tokenized = conversations.tokenize(conversation(("user", "1+1?"), ("assistant", "\n\n2")), tokenizer)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1?"}], add_generation_prompt=True, return_dict=False
    )
    assert tokenized.ids[: len(prompt)].tolist() == prompt
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
        conversations.check_template(tiny.tokenizer(template), 258, "some/model")
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_does_not_give_back_what_it_read_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(DataError, match=r"reads the template's 'What is 1\+1\?.*' as 'what is 1\+1\?") as refusal:
        conversations.check_template(tokenizer, 258, "some/model")
    assert "\n" not in str(refusal.value)


def test_an_end_of_turn_in_pieces_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("<|im_end|>", "</s>")
    tokenizer._special_tokens_map["eos_token"] = "</s>"
    with pytest.raises(DataError, match="make it one special token"):
        conversations.check_template(tokenizer, 258, "some/model")


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer):
    with pytest.raises(DataError, match="has 258 tokens, its model 200"):
        conversations.check_template(tokenizer, 200, "some/model")


def test_an_example_without_an_assistant_turn_is_refused(tokenizer):
    with pytest.raises(DataError, match="'id' has no assistant turn"):
        conversations.tokenize(conversation(("user", "1+1?")), tokenizer)
