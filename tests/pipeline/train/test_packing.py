"""Packed rows: every token once, nothing learned or seen across examples, and the loss without whole logits."""

from itertools import accumulate

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

from pipeline.train import attention, conversations, objective, packing


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def test_packing_keeps_every_token_once_and_fills_rows(tokenizer):
    tokenized = [conversations.tokenize(example, tokenizer) for example in tiny.examples(60)]
    rows = packing.pack(tokenized, 200)
    assert sum(len(row.example_ids) for row in rows) == 60
    assert sum(len(row.input_ids) for row in rows) == sum(len(example.ids) for example in tokenized)
    assert sum(row.target_tokens for row in rows) == sum(sum(example.targets) for example in tokenized)
    assert all(len(row.input_ids) == sum(row.lengths) == len(row.labels) <= 200 for row in rows)
    assert sum(len(row.input_ids) for row in rows) / (200 * len(rows)) > 0.9
    assert packing.pack(tokenized[::-1], 200) == rows


def test_labels_are_the_next_token_and_never_that_of_another_example(tokenizer):
    (row,) = packing.pack([conversations.tokenize(example, tokenizer) for example in tiny.examples(3)], 512)
    ends = [end - 1 for end in accumulate(row.lengths)]
    assert len(ends) == 3
    for index, label in enumerate(row.labels):
        assert label == packing.IGNORED or label == row.input_ids[index + 1]
        assert label == packing.IGNORED or index not in ends


def test_no_attention_crosses_examples(tokenizer):
    tokenized = [conversations.tokenize(example, tokenizer) for example in tiny.examples(4)]
    (row,) = packing.pack(tokenized, 512)
    network = tiny.model().eval()
    network.config._attn_implementation = attention.NAME
    with torch.no_grad():
        ids = torch.tensor([row.input_ids])
        positions = torch.cat([torch.arange(length) for length in row.lengths])[None]
        bounds = attention.Bounds.of(row.lengths, ids.device)
        packed = network(ids, position_ids=positions, use_cache=False, bounds=bounds).logits[0]
        network.config._attn_implementation = "sdpa"
        start = 0
        for example in sorted(tokenized, key=lambda example: (-len(example.ids), example.example_id)):
            alone = network(torch.tensor([example.ids.tolist()])).logits[0]
            assert torch.allclose(packed[start : start + len(alone)], alone, atol=1e-4)
            start += len(alone)


@pytest.mark.parametrize("slice_bytes", [1, 4 * 11 * 4, 1 << 28])
def test_the_loss_in_slices_is_the_loss(monkeypatch, slice_bytes):
    monkeypatch.setattr(objective, "SLICE_BYTES", slice_bytes)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 11, (9,), generator=generator)
    inputs = [torch.randn(size, generator=generator, requires_grad=True) for size in ((9, 5), (11, 5))]
    whole = 3 * cross_entropy(inputs[0] @ inputs[1].t(), labels, reduction="sum")
    sliced = 3 * objective.SummedLoss.apply(*inputs, labels)
    assert torch.allclose(whole, sliced)
    for one, other in zip(torch.autograd.grad(whole, inputs), torch.autograd.grad(sliced, inputs), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_row_without_targets_has_no_loss():
    hidden, weight = torch.randn(0, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    loss = objective.SummedLoss.apply(hidden, weight, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0 and weight.grad.abs().sum() == 0
