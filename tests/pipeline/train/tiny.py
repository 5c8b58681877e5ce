"""A model, a tokenizer and examples small enough to train in seconds, made without a network."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.records import Example, Message, TrainStage

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> Any:
    """One token for each byte, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = template
    return made


def model(seed: int = 0, positions: int = 512, *, tied: bool = True) -> Any:
    """A random Llama; the same seed gives the same weights."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        eos_token_id=257,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(shape)


def save(folder: Path, **options: Any) -> str:
    """A model folder."""
    model(**options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def examples(count: int, stage: TrainStage = "stage1", seed: int = 0) -> list[Example]:
    """Conversations of unequal length about sums."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        a, b = rng.randrange(50), rng.randrange(50)
        steps = " ".join(f"{a} and {b}." for _ in range(rng.randrange(1, 6)))
        turns = [Message("user", f"{a}+{b}?"), Message("assistant", f"{steps} \\boxed{{{a + b}}}")]
        made.append(Example(f"{index:04d}", stage, f"p{index}", "", turns))
    return made
