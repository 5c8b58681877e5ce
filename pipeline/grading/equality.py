r"""Whether two answers are the same: their structures compared part by part, their formulas by value.

In: the normal forms of a gold answer and an answer. Out: a verdict and the rule that gave it. Runs in the grader's
child process only, for the LaTeX parser and sympy may run long, or out of memory, on what a model writes.
"""

import re
from fractions import Fraction
from typing import Any, Literal

import sympy

from pipeline.grading import formulas, sets, values
from pipeline.grading.quantities import Quantity, is_precise, is_rounded, same_quantity
from pipeline.grading.spelling import ANGLE_FUNCTIONS
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
    name_key,
    read,
)

Decision = tuple[Literal["correct", "incorrect", "unparsable"], str]


def judge(gold: str, answer: str) -> Decision:
    """Compare the normal form of an answer with that of the gold one, by the precision policy. May take its time."""
    return _judged(gold, answer, exact=False)


def judge_exactly(one: str, other: str) -> Decision:
    """Compare two normal forms, neither of them gold, as exact values. May take its time."""
    return _judged(one, other, exact=True)


def _judged(gold: str, answer: str, *, exact: bool) -> Decision:
    formulas.tree.cache_clear()  # what earlier questions left there must not decide whether this one is done in time
    try:
        wanted, given = read(gold, exact=exact), read(answer, exact=exact)
        number = isinstance(wanted, Quantity) and wanted.decimals is None and not exact
        if number and isinstance(given, Formula) and _is_left_undone(given.latex):
            return "incorrect", "not_worked_out"
        return ("correct" if _same(wanted, given) else "incorrect"), _kind(wanted)
    except values.TooLargeError:
        return "unparsable", "too_large"
    except UnreadableError as error:
        return "unparsable", str(error)
    except RecursionError:
        return "unparsable", "too_deep"


_FUNCTION = re.compile(rf"(?<![a-zA-Z])(?:{ANGLE_FUNCTIONS}|log|lg|ln|gcd|lcm|sum|prod|int|lim|max|min)(?![a-z])")
_OPERATOR = re.compile(r"\\(?:times|cdot|div)")
_ARITHMETIC = re.compile(r"\\(?:frac|[lr]floor|[lr]ceil|text)")
_SUM = re.compile(r"[\d)}\]]\s*[-+*]\s*[\d({\[|]")


def _is_left_undone(latex: str) -> bool:
    """Whether a formula says a number without having found it: whoever repeats the problem has not answered it.

    Powers, factorials, roots and constants are ways to write a number; sums, products of numbers and functions are not.
    """
    plain = _ARITHMETIC.sub(" ", _OPERATOR.sub("*", latex))
    return bool(_FUNCTION.search(latex) or (_SUM.search(plain) and not re.search(r"[\^!a-zA-Z\\]", plain)))


_KINDS = {
    Words: "text",
    Quantity: "number",
    Formula: "formula",
    Listing: "list",
    Matrix: "matrix",
    Relation: "relation",
}


def _kind(node: Node) -> str:
    return _KINDS.get(type(node), "set")


# --- comparison -----------------------------------------------------------------------------------


def _same(gold: Node, answer: Node) -> bool:
    gold, answer = _unwrapped(gold, answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_matrix(gold, answer)
    names = sets.set_name(gold), sets.set_name(answer)
    if names[0] and names[1]:
        return names[0] == names[1]
    if sets.is_set(gold) or sets.is_set(answer):
        if (about := sets.about(gold)) and (also := sets.about(answer)) and about != also:
            return False
        same = sets.same_set(gold, answer)
        if same is not None:
            return same
        if isinstance(gold, Formula) or isinstance(answer, Formula):
            return False
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relation(gold, answer)
    if isinstance(gold, Relation | SetAlgebra) or isinstance(answer, Relation | SetAlgebra):
        return False
    if isinstance(gold, Listing) or isinstance(answer, Listing):
        return _same_listing(gold, answer)
    assert isinstance(gold, Quantity | Formula) and isinstance(answer, Quantity | Formula)
    return _same_number(gold, answer)


def _assigned(node: Node) -> tuple[str, Node] | None:
    """The name and the value of an assignment: of "x = 2 + 3 = 5" x and 5."""
    if isinstance(node, Relation) and set(node.signs) == {"="} and is_name(node.sides[0]):
        return node.sides[0], node.nodes[-1]
    return None


def _unwrapped(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Both without the name before them, where one of them has none; brackets around one thing are none."""
    gold, answer = _single(gold), _single(answer)
    named_gold, named_answer = _assigned(gold), _assigned(answer)
    if named_gold and not isinstance(answer, Relation):
        return _single(named_gold[1]), answer
    if named_answer and not isinstance(gold, Relation):
        return gold, _single(named_answer[1])
    if isinstance(gold, Quantity) and isinstance(answer, Relation) and _is_true_chain(answer):
        return gold, _single(answer.nodes[-1])
    if named_gold and named_answer:
        one, other = name_key(named_gold[0]), name_key(named_answer[0])
        if one == other:
            return _single(named_gold[1]), _single(named_answer[1])
    return gold, answer


def _is_true_chain(node: Relation) -> bool:
    """Whether all sides are the same: of "7 + 7 + 6 = 20"."""
    return set(node.signs) == {"="} and all(_same(side, node.nodes[-1]) for side in node.nodes[:-1])


def _single(node: Node) -> Node:
    while isinstance(node, Listing) and len(node.items) == 1 and node.brackets in ("", "{}", "()"):
        if node.brackets == "{}" and sets.is_set(node.items[0]):
            break
        node = node.items[0]
    return node


def _same_words(gold: Node, answer: Node) -> bool:
    one, other = (_plain(node) for node in (gold, answer))
    return bool(one) and one == other


def _plain(node: Node) -> str:
    """An answer's words without article, spaces and dressing; nothing for one that is not made of letters."""
    text = node.text if isinstance(node, Words) else node.latex if isinstance(node, Formula) else ""
    bare = re.sub(
        r"\\text|[\s{}.-]" if isinstance(node, Words) else r"\\text|[\s{}]", "", _ARTICLE.sub("", text.casefold())
    )
    return bare if bare.isalnum() else ""


_ARTICLE = re.compile(r"^(?:the|a|an)\s+")


def _same_matrix(gold: Node, answer: Node) -> bool:
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if [len(row) for row in gold.rows] == [len(row) for row in answer.rows]:
            return all(
                _same(one, other)
                for rows in zip(gold.rows, answer.rows, strict=True)
                for one, other in zip(*rows, strict=True)
            )
        return False
    vectors = [_vector(node) for node in (gold, answer)]
    return vectors[0] is not None and vectors[1] is not None and _in_order(vectors[0], vectors[1])


def _vector(node: Node) -> tuple[Node, ...] | None:
    if isinstance(node, Listing) and node.brackets in ("", "()", "[]"):
        return node.items
    if isinstance(node, Matrix) and len(node.rows) == 1:
        return node.rows[0]
    if isinstance(node, Matrix) and all(len(row) == 1 for row in node.rows):
        return tuple(row[0] for row in node.rows)
    return None


_HALF_OPEN = {"(]", "[)", "[]"}


def _same_listing(gold: Node, answer: Node) -> bool:
    """In order where brackets say so, or where the gold answer names its values and the answer does not."""
    one, other = (node if isinstance(node, Listing) else Listing((node,), "") for node in (gold, answer))
    if len(one.items) > 1 and len(other.items) == 1 and isinstance(other.items[0], Listing):
        other = other.items[0]
    kinds = {one.brackets, other.brackets}
    if len(kinds) > 1 and (kinds & _HALF_OPEN or kinds == {"()", "{}"}):
        return False
    named = _has_names(one) and not any(map(_assigned, other.items))
    return (_in_order if named or kinds - {"", "{}"} else _in_any_order)(one.items, other.items)


def _has_names(node: Listing) -> bool:
    """Whether all items are assignments, each to a name of its own."""
    names = {assigned[0] for item in node.items if (assigned := _assigned(item))}
    return len(names) == len(node.items) > 1


def _in_order(one: tuple[Node, ...], other: tuple[Node, ...]) -> bool:
    return len(one) == len(other) and all(_same(gold, answer) for gold, answer in zip(one, other, strict=True))


def _in_any_order(gold: tuple[Node, ...], answer: tuple[Node, ...]) -> bool:
    """Whether each finds its partner. What the answer says twice counts once, unless the gold answer does so too."""
    wanted, given = list(gold), list(answer)
    if len(set(wanted)) == len(wanted):
        given = list(dict.fromkeys(given))
    if len(wanted) != len(given):
        return False
    for one in wanted:
        partner = next((other for other in given if _same(one, other)), None)
        if partner is None:
            return False
        given.remove(partner)
    return True


# --- numbers and formulas ---------------------------------------------------------------------------


def _same_number(gold: Quantity | Formula, answer: Quantity | Formula) -> bool:
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return same_quantity(gold, answer)
    if isinstance(gold, Formula) and isinstance(answer, Formula):
        if "".join(gold.latex.split()) == "".join(answer.latex.split()):
            return True
        return _same_formula(formulas.parsed(gold.latex, "gold"), formulas.parsed(answer.latex, "answer"))
    number, formula, whose = (gold, answer, "answer") if isinstance(gold, Quantity) else (answer, gold, "gold")
    assert isinstance(number, Quantity) and isinstance(formula, Formula)
    tree = formulas.parsed(formula.latex, whose)
    try:
        if values.variables(tree):  # equal where the variables cancel: sin^2 + cos^2 = 1
            constant = sympy.Rational(number.value.numerator, number.value.denominator)
            return values.same_function(tree, constant) is True
        found = values.value(tree)
    except values.NoValueError:
        return False  # a number that was written down has a value, and is not too large
    exact = values.fraction(found)
    if exact is None:
        return False
    if isinstance(found, Fraction):
        other = Quantity(found, None, formula.percent)
        return same_quantity(number, other) if gold is number else same_quantity(other, number)
    scale = 100 if number.percent and not formula.percent else 1
    if values.same_value(found * scale, number.value):
        return True
    # Without an end as a decimal: the policy of `quantities.same_quantity`.
    return is_rounded(number, exact) if gold is number else is_precise(number, exact)


def _same_formula(gold: Any, answer: Any) -> bool:
    same = values.same_function(gold, answer)
    if same is None:
        raise UnreadableError("no_value")
    return same


# --- relations --------------------------------------------------------------------------------------


def _same_relation(gold: Relation, answer: Relation) -> bool:
    gold, answer = gold.rising(), answer.rising()
    if gold.signs != answer.signs:
        return False
    if set(gold.signs) == {"="}:
        if len(gold.signs) == 1:
            return _same_equation(gold, answer)
        return _in_any_order(gold.nodes, answer.nodes)
    if _in_order(gold.nodes, answer.nodes):
        return True
    if len(gold.signs) == 1 and gold.signs[0] in ("<", "\\le"):
        return _same_inequality(gold, answer)
    return False


def _difference(relation: Relation, whose: str) -> Any:
    left, right = (formulas.parsed(side, whose) for side in relation.sides)
    return sympy.Add(left, sympy.Mul(-1, right, evaluate=False), evaluate=False)


def _same_equation(gold: Relation, answer: Relation) -> bool:
    """Two equations of one curve: the differences of their sides are multiples of each other."""
    if {"".join(side.split()) for side in gold.sides} == {"".join(side.split()) for side in answer.sides}:
        return True
    return values.factor(_difference(gold, "gold"), _difference(answer, "answer")) is not None


def _same_inequality(gold: Relation, answer: Relation) -> bool:
    left, right = _difference(gold, "gold"), _difference(answer, "answer")
    factor = values.factor(left, right) if values.variables(left) else None
    exact = None if factor is None else values.fraction(factor)
    return exact is not None and exact > 0
