"""When sampling stops: enough is right, the most is asked, or a further right answer costs too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Distill
from pipeline.distill.stopping import Tried, gives_up, wanted


@pytest.mark.parametrize(
    ("tried", "settings", "count"),
    [
        (Tried(), {"keep": 1}, 1),
        (Tried(), {"keep": 4, "max_samples": 8}, 4),
        (Tried(1, 4, 400), {"keep": 4, "max_samples": 8}, 3),
        (Tried(1, 7, 700), {"keep": 4, "max_samples": 8}, 1),
        (Tried(4, 5, 500), {"keep": 4, "max_samples": 8}, 0),
        (Tried(0, 8, 800), {"keep": 4, "max_samples": 8}, 0),
        (Tried(0, 8, 800), {"keep": 8, "max_samples": 8}, 0),
        # one right answer of (0.5 + 0) / (1 + 4): 1,000 tokens; nothing is known before the first answer
        (Tried(0, 4, 400), {"keep": 1, "max_samples": 8, "give_up_tokens": 999}, 0),
        (Tried(0, 4, 400), {"keep": 1, "max_samples": 8, "give_up_tokens": 1001}, 1),
        (Tried(), {"keep": 1, "max_samples": 8, "give_up_tokens": 1}, 1),
        # a further right answer may take an eighth: one of (0.5 + 1) / (1 + 4) takes 333 tokens
        (Tried(1, 4, 400), {"keep": 4, "max_samples": 8, "give_up_tokens": 8 * 333}, 0),
        (Tried(1, 4, 400), {"keep": 4, "max_samples": 8, "give_up_tokens": 8 * 334}, 1),
        (Tried(1, 4, 400), {"keep": 4, "max_samples": 8, "give_up_tokens": 334, "further_worth": 1}, 1),
        # no more at once than will be needed by what is known
        (Tried(), {"keep": 4, "max_samples": 8, "give_up_tokens": 9999}, 2),
        (Tried(2, 2, 200), {"keep": 4, "max_samples": 8, "give_up_tokens": 9999}, 2),
        (Tried(0, 2, 200), {"keep": 4, "max_samples": 8, "give_up_tokens": 9999}, 1),
    ],
)
def test_so_many_answers_are_asked_for(tried: Tried, settings: dict[str, int], count: int) -> None:
    assert wanted(tried, Distill(**settings)) == count


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), max_size=40), st.integers(1, 6), st.integers(1, 20000))
def test_no_answer_is_asked_for_that_is_not_needed(answers: list[tuple[bool, int]], keep: int, limit: int) -> None:
    config = Distill(keep=keep, max_samples=max(keep, 20), give_up_tokens=limit)
    tried = Tried()
    for right, tokens in answers:
        count = wanted(tried, config)
        assert tried.right + count <= keep and tried.samples + count <= config.max_samples
        assert (count == 0) == (tried.right >= keep or tried.samples >= config.max_samples or gives_up(tried, config))
        if count == 0:
            break
        tried.add(right=right, tokens=tokens)
