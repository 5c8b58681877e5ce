"""Whose rules say what the answer of a response is and when it is right: one generation, a number for each harness.

In: a convention. Out: the function that grades under it. Ours is `pipeline.grading`; the others are in `harnesses`. They
read the whole response, a thought too, as they do at home.
"""

import importlib.util
from collections.abc import Callable, Iterable
from functools import partial

from pipeline.errors import ConfigError
from pipeline.evaluate.harnesses import lm_eval, math_verify, qwen_math, string_match
from pipeline.grading import Grade, Grader, grade_last_number
from pipeline.records import Convention

_HARNESSES = {"math_verify": math_verify, "string_match": string_match, "qwen_math": qwen_math, "lm_eval": lm_eval}


def grading(convention: Convention, grader: Grader) -> Callable[[str, str], Grade]:
    """The function from (gold answer, response) to a Grade, for any thread. It ends in the time that the harness has."""
    if convention == "final_answer":
        return grader.grade
    if convention == "last_number":
        return grade_last_number
    harness = _HARNESSES[convention]
    return partial(grader.grade_by, f"{harness.__name__}:judge", harness.LIMIT_S)


def check(conventions: Iterable[Convention]) -> None:
    """Raises ConfigError where a convention needs what is not installed."""
    if "math_verify" in conventions and importlib.util.find_spec("math_verify") is None:
        raise ConfigError(
            "convention 'math_verify' needs the package math-verify: `pip install math-verify`, or leave it out"
        )
