r"""String match: the last box, or what follows "answer is", is the gold answer's text in Minerva's spelling.

Source of the spelling: Lewkowycz et al. (arXiv 2206.14858), appendix D, with what lm-evaluation-harness has mended in it
(minerva_math 3.1): `\\left` is no unit of feet, `0,1` is not 01.
"""

import re

from pipeline.grading import last_boxed
from pipeline.grading.child import Judged

LIMIT_S = 5.0

_STATEMENT = re.compile(r"\banswer(?: is\b|:)[ \t]*:?(.*)", re.IGNORECASE)
_CLOSING = "I hope it is correct."


def judge(gold: str, response: str) -> Judged:
    """Whether the texts are equal in Minerva's spelling."""
    answer = _stated(response)
    if answer is None:
        return "unparsable", "no_answer", None
    same = minerva_spelling(answer) == minerva_spelling(gold)
    return "correct" if same else "incorrect", "text", answer


def _stated(response: str) -> str | None:
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed
    said = _STATEMENT.findall(response)
    return said[-1].strip().removesuffix(_CLOSING).strip().removesuffix(".") if said else None


_SUBSTITUTIONS = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
    (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_UNITS = (
    "square|ways|integers|dollars|mph|inches|ft|hours|km|units|sue|points|feet|minutes|digits|cents|degrees|cm|gm|pounds"
    "|meters|meals|edges|students|childrentickets|multiples"
)
_REMOVED = (
    "\\ldots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}",
    "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots",
)  # fmt: skip
_WORDS = re.compile(rf"(?<!\\)\b(?:{_UNITS})\b")
_GLUED = re.compile(rf"(\\[a-zA-Z]+)|{_UNITS}")
_UNDRESSED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r".*?\$(.*?)\$.*", r"$\1$"),
        (r"\\text\{(.*?)\}", r"\1"),
        (r"\\textbf\{(.*?)\}", r"\1"),
        (r"\\overline\{(.*?)\}", r"\1"),
        (r"\\boxed\{(.*)\}", r"\1"),
        (r"frac([^{])(.)", r"frac{\1}{\2}"),
        (r"sqrt(\[[^\]]*\])(\w)", r"sqrt\1{\2}"),
        (r"sqrt(?!\[)([^{])", r"sqrt{\1}"),
        (r"\$", ""),
    )
)


def minerva_spelling(answer: str) -> str:
    """An answer in Minerva's spelling: what follows the last "=", without units, dressing and blanks."""
    text = _WORDS.sub("", answer.rpartition("=")[2])
    for before, after in _SUBSTITUTIONS:
        text = text.replace(before, after)
    text = _GLUED.sub(r"\1", text)
    for words in _REMOVED:
        text = text.replace(words, "")
    for pattern, replacement in _UNDRESSED:
        text = pattern.sub(replacement, text)
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")
