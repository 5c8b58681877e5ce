r"""lm-evaluation-harness on MATH: the rules of its tasks hendrycks_math (1.1) and minerva_math (3.1, its exact_match).

A response with the sentence that minerva_math's examples teach, "Final Answer: The final answer is ...", is graded as
there: its answer in Minerva's spelling, the same text or equal when sympy simplifies the difference to 0. Any other one
as in hendrycks_math: the last box (not before 1.1, nor in the release 0.4.13), else what stands in the first \[ \], else
between the first and the last $, else all of it; the same text in MATH's spelling (Hendrycks et al., arXiv 2103.03874).
Source: github.com/EleutherAI/lm-evaluation-harness, lm_eval/tasks/{hendrycks_math,minerva_math}/utils.py.
"""

import re

from pipeline.evaluate.harnesses.latex import in_braces, plain_tree, whole_fractions
from pipeline.evaluate.harnesses.string_match import minerva_spelling
from pipeline.grading.child import Judged

LIMIT_S = 5.0
"""As there."""

_FINAL = "Final Answer: The final answer is"
_STATED = re.compile(_FINAL + r"(.*?). I hope it is correct\.")
_DISPLAY = re.compile(r"\\\[(.+?)\\\]", re.DOTALL)


def judge(gold: str, response: str) -> Judged:
    """The verdict of the task whose format the response has."""
    if _FINAL in response:
        return _minerva(gold, response)
    answer = _boxed(response)
    if answer is None:
        display = _DISPLAY.search(response)
        dollars = [index for index, character in enumerate(response) if character == "$"]
        inline = response[dollars[0] + 1 : dollars[-1]] if len(dollars) > 1 else response
        answer = display[1].strip() if display else inline
    return "correct" if _same_text(gold, answer) else "incorrect", "hendrycks_math", answer


def _boxed(response: str) -> str | None:
    if "\\boxed " in response:
        return response.rpartition("\\boxed ")[2].partition("$")[0]
    _, command, rest = response.rpartition("\\boxed" if "\\boxed" in response else "\\fbox")
    return in_braces(rest[rest.find("{") :], closed=True) if command and "{" in rest else None


# --- hendrycks_math ---------------------------------------------------------------------------------


def _same_text(gold: str, answer: str) -> bool:
    try:
        return math_spelling(gold) == math_spelling(answer)
    except ValueError:
        return gold == answer


_REWRITES = (
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
)  # fmt: skip


def math_spelling(answer: str) -> str:
    r"""An answer in MATH's spelling. Raises ValueError where the harness gives up: `x/2`, two `\text{ units}`."""
    text = answer
    for before, after in _REWRITES:
        text = text.replace(before, after)
    text, *units = text.split("\\text{ ")
    if len(units) > 1:
        raise ValueError("two units")
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    text = f"0{text}" if text.startswith(".") else text
    name, *values = text.split("=")
    text = values[0] if len(values) == 1 and len(name) <= 2 else text
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
    text = whole_fractions(text.replace(" ", ""))
    if text == "0.5":
        return "\\frac{1}{2}"
    numerator, *denominators = text.split("/")
    if len(denominators) == 1 and text == f"{int(numerator)}/{int(denominators[0])}":
        return f"\\frac{{{numerator}}}{{{denominators[0]}}}"
    return text


# --- minerva_math -----------------------------------------------------------------------------------


def _minerva(gold: str, response: str) -> Judged:
    stated = _STATED.search(response + "I hope it is correct.")
    if stated is None:
        return "unparsable", "minerva_math", None
    answer = stated[1].strip()
    return "correct" if _same_value(gold, answer) else "incorrect", "minerva_math", answer


def _same_value(gold: str, answer: str) -> bool:
    import sympy

    wanted, given = minerva_spelling(gold), minerva_spelling(answer)
    if wanted == given:
        return True
    try:
        return bool(sympy.simplify(plain_tree(wanted) - plain_tree(given)) == 0)
    except MemoryError:
        raise
    except Exception:  # the parser and sympy raise of every kind; the harness calls it wrong
        return False
