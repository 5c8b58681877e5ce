r"""What kind of answer it is: one of `records.AnswerType`.

In: a labelled answer. Out: its kind, read from its structure as the grader reads it: a kind is what will be compared.
"""

import re

from pipeline.grading.quantities import Quantity
from pipeline.grading.spelling import INTEGER, MAX_CHARS, choice, normal
from pipeline.grading.structure import (
    Formula,
    Listing,
    Matrix,
    Node,
    Relation,
    SetAlgebra,
    UnreadableError,
    Words,
    is_name,
    read,
)
from pipeline.records import AnswerType


def answer_type(answer: str) -> AnswerType:
    """What kind of answer it is."""
    if INTEGER.fullmatch(answer):
        return "integer"
    if len(answer) > MAX_CHARS:
        return "text"
    spelt = normal(answer)
    if choice(spelt):
        return "choice"
    try:
        return _type(read(spelt), spelt)
    except (UnreadableError, RecursionError):
        return "text"


def _type(node: Node, spelt: str) -> AnswerType:
    if isinstance(node, Quantity):
        return _number_type(node, spelt)
    if isinstance(node, Words):
        return "text"
    if isinstance(node, Formula):
        return _formula_type(node.latex)
    if isinstance(node, Matrix):
        return "matrix"
    if isinstance(node, SetAlgebra):
        return "interval"
    if isinstance(node, Relation):
        return _relation_type(node)
    return _listing_type(node)


_VARIABLE_BEHIND = re.compile(r"[\d}]\s*[a-z]")
"""A unit of one letter would be written in `\\text`: 2 n is no number of newtons."""


def _number_type(number: Quantity, spelt: str) -> AnswerType:
    if _VARIABLE_BEHIND.fullmatch(spelt[-2:].strip()) or _VARIABLE_BEHIND.fullmatch(spelt[-3:]):
        return "expression"
    if number.percent:
        return "percentage"
    if number.decimals:
        return "decimal"
    return "integer" if number.value.denominator == 1 and "frac" not in spelt and "/" not in spelt else "fraction"


_NO_LETTERS = re.compile(
    r"\\text\s*\{[^{}]*\}|\\(?:frac|sqrt|binom|cdot|times|div|left|right|sin|cos|tan|cot|sec|csc|log|ln|exp|arc[a-z]+"
    r"|[lr]floor|[lr]ceil|circ)(?![a-z])|\\[^a-z]|(?<![a-z\\])(?:sqrt|sin|cos|tan|log|ln)(?![a-z])"
)
_SET = re.compile(r"\\(?:mathbb|emptyset|varnothing|infty)")


def _formula_type(latex: str) -> AnswerType:
    if _SET.search(latex):
        return "interval"
    bare = _NO_LETTERS.sub(" ", latex)
    letters = set(re.findall(r"\\?[A-Za-z]+", re.sub(r"(?<![A-Za-z\\])([A-Za-z])(?=[A-Za-z])", r"\1 ", bare)))
    if not letters - {"e", "\\pi", "pi"}:
        return "real" if (letters or re.search(r"\d", bare)) and ":" not in bare else "text"
    return "complex" if letters <= {"i", "e", "\\pi", "pi"} else "expression"


def _relation_type(node: Relation) -> AnswerType:
    if node.signs == ("=",) and is_name(node.sides[0]) and "(" not in node.sides[0]:
        kind = _type(node.nodes[1], node.sides[1])
        return "equation" if kind == "expression" else kind  # x = 5 is a number, y = 2x + 1 a curve
    if set(node.signs) <= {"<", ">", "\\le", "\\ge", "\\ne", "\\in"}:
        return "interval"
    return "equation"


def _listing_type(node: Listing) -> AnswerType:
    ends = {"(]", "[)", "[]"}
    if node.brackets in ends and len(node.items) == 2:
        return "interval"
    if node.brackets == "()" and any(isinstance(item, Formula) and "infty" in item.latex for item in node.items):
        return "interval"
    return "set" if node.brackets in ("", "{}") else "tuple"
