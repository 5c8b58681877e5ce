"""The value of a formula: exact as long as it can be, else to a hundred digits. Nothing is simplified.

In: sympy trees as the LaTeX parser leaves them, unevaluated. Out: numbers. Two formulas with variables are equal where
they are equal at every one of several points (the polynomial identity test of Schwartz and Zippel): that needs no
`simplify`, which may run for ever, and no tolerance, which may merge what differs.
"""

import math
import random
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import mpmath
import sympy
from sympy.core.function import AppliedUndef

Value = Any
"""A `Fraction`, or a real or complex number of mpmath where that cannot be."""

DIGITS = 100
EQUAL = mpmath.mpf(10) ** -60
"""How near two values of a hundred digits are when they are the same: nothing that anyone writes comes as close."""
MAX_BITS = 200_000
"""Larger numbers are not worked out: a power tower has more digits than the world has atoms."""
IMAGINARY = "i"
"""The parser has it as a variable."""
MAX_FACTORIAL = 3_000
MAX_TERMS = 3_000
POINTS = 8
ENOUGH_POINTS = 3


class NoValueError(Exception):
    """A formula that has no value here: too large, undefined at this point, or of a kind that is not known."""


class TooLargeError(NoValueError):
    """A number with more digits than are worked out."""


def value(formula: sympy.Basic, at: Mapping[str, Fraction] | None = None) -> Value:
    """The value of a formula, its variables as given by name. Raises NoValueError."""
    with mpmath.workdps(DIGITS):
        try:
            found = _value(formula, at or {})
        except (ZeroDivisionError, OverflowError, ValueError, TypeError, AttributeError) as error:
            raise NoValueError(str(error)) from error
        if not isinstance(found, Fraction) and not mpmath.isfinite(found):
            raise NoValueError("not finite")
        return found


def same_value(one: Value, other: Value) -> bool:
    """Whether two values are the same number."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    with mpmath.workdps(DIGITS):
        one, other = as_mp(one), as_mp(other)
        size = max(abs(one), abs(other))
        return bool(size < EQUAL or abs(one - other) <= EQUAL * size)


def fraction(number: Value) -> Fraction | None:
    """A real value as a fraction, to a hundred digits; None for a complex one."""
    if isinstance(number, Fraction):
        return number
    with mpmath.workdps(DIGITS):
        if abs(mpmath.im(number)) > EQUAL * max(1, abs(number)) or abs(mpmath.re(number)) > mpmath.mpf(10) ** 300:
            return None
        return Fraction(mpmath.nstr(mpmath.re(number), DIGITS - 10, min_fixed=-400, max_fixed=400))


def variables(formula: sympy.Basic) -> set[str]:
    """The names of what a formula depends on."""
    functions = {str(call) for call in formula.atoms(AppliedUndef)}
    symbols = {symbol.name for symbol in formula.free_symbols if isinstance(symbol, sympy.Symbol)}
    return (symbols - {IMAGINARY}) | functions


def same_function(one: sympy.Basic, other: sympy.Basic, *, up_to_factor: bool = False) -> bool | None:
    """Whether two formulas are equal for every value of their variables; None where that cannot be told.

    With `up_to_factor` it is enough that one is a constant multiple of the other, and the constant is not zero: so are
    the sides of two equations of the same curve. The constant's sign is ignored.
    """
    ratios = set_of_ratios(one, other)
    if ratios is None:
        return None
    if up_to_factor:
        first = ratios[0]
        return not same_value(first, Fraction(0)) and all(same_value(first, ratio) for ratio in ratios[1:])
    return all(same_value(ratio, Fraction(1)) for ratio in ratios)


def set_of_ratios(one: sympy.Basic, other: sympy.Basic) -> list[Value] | None:
    """one / other at several points, None where there are too few points at which both have a value.

    Where both are zero a point says nothing; where only one is, the ratio is taken as zero.
    """
    names = sorted(variables(one) | variables(other))
    if not names:
        try:
            return [_ratio(value(one), value(other))]
        except TooLargeError:
            raise
        except NoValueError:
            return None
    ratios = []
    for at in _points(names):
        try:
            here, there = value(one, at), value(other, at)
        except TooLargeError:
            raise
        except NoValueError:
            continue
        ratios.append(_ratio(here, there))
        if len(ratios) == POINTS:
            break
    return ratios if len(ratios) >= ENOUGH_POINTS else None


def _ratio(here: Value, there: Value) -> Value:
    zero = Fraction(0)
    if same_value(here, zero) or same_value(there, zero):
        return Fraction(1) if same_value(here, there) else zero
    if isinstance(here, Fraction) and isinstance(there, Fraction):
        return here / there
    with mpmath.workdps(DIGITS):
        return as_mp(here) / as_mp(there)


def _points(names: list[str]) -> Iterable[dict[str, Fraction]]:
    """Points of no special shape: first of both signs, then positive ones for formulas that live only there."""
    dice = random.Random(0)
    for low in (-4, -4, -4, 0, 0):
        for _ in range(POINTS // 2):
            yield {name: Fraction(dice.randint(low * 997 + 1, 4 * 997), 997) for name in names}


# --- one formula ----------------------------------------------------------------------------------


def as_mp(number: Value) -> Any:
    """A value as mpmath has it, at the precision in force."""
    if isinstance(number, Fraction):
        return mpmath.mpf(number.numerator) / number.denominator
    return number


def _value(node: Any, at: Mapping[str, Fraction]) -> Value:
    if isinstance(node, sympy.Rational):
        return Fraction(int(node.p), int(node.q))
    if isinstance(node, sympy.Float):
        return Fraction(str(node))
    if isinstance(node, sympy.Symbol):
        return _variable(node.name, at)
    if isinstance(node, AppliedUndef):
        return _variable(str(node), at)
    if isinstance(node, sympy.Add):
        return _sum(_value(term, at) for term in node.args)
    if isinstance(node, sympy.Mul):
        return _product(_value(factor, at) for factor in node.args)
    if isinstance(node, sympy.Pow):
        return _power(node, at)
    if isinstance(node, sympy.exp):
        return _power(sympy.Pow(sympy.E, node.args[0], evaluate=False), at)
    if node in _CONSTANTS:
        return +_CONSTANTS[node]
    if isinstance(node, sympy.UnevaluatedExpr):
        return _value(node.args[0], at)
    name = type(node).__name__
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*(_value(argument, at) for argument in node.args))
    if isinstance(node, sympy.Sum | sympy.Product) and len(node.limits) == 1:
        return _series(node, at)
    if isinstance(node, sympy.Sum | sympy.Product | sympy.Integral | sympy.Limit | sympy.Derivative | sympy.Subs):
        done = node.doit()
        if done != node:
            return _value(done, at)
    raise NoValueError(name)


_CONSTANTS = {
    sympy.pi: mpmath.mp.pi,
    sympy.E: mpmath.mp.e,
    sympy.GoldenRatio: mpmath.mp.phi,
    sympy.I: mpmath.mpc(0, 1),
}


def _variable(name: str, at: Mapping[str, Fraction]) -> Value:
    if name == IMAGINARY and name not in at:
        return mpmath.mpc(0, 1)
    if name not in at:
        raise NoValueError(name)
    return at[name]


def _sum(terms: Iterable[Value]) -> Value:
    total: Value = Fraction(0)
    for term in terms:
        exact = isinstance(total, Fraction) and isinstance(term, Fraction)
        total = total + term if exact else as_mp(total) + as_mp(term)
    return total


def _product(factors: Iterable[Value]) -> Value:
    total: Value = Fraction(1)
    for factor in factors:
        exact = isinstance(total, Fraction) and isinstance(factor, Fraction)
        total = total * factor if exact else as_mp(total) * as_mp(factor)
        if exact:
            _small(total)
    return total


def _small(number: Fraction) -> None:
    if number.numerator.bit_length() + number.denominator.bit_length() > MAX_BITS:
        raise TooLargeError("too many digits")


def _power(node: Any, at: Mapping[str, Fraction]) -> Value:
    base, exponent = _value(node.args[0], at), _value(node.args[1], at)
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        if exponent.denominator == 1 and base in (1, -1):
            return base ** (exponent.numerator % 2)
        if exponent.denominator == 1:
            if (max(base.numerator.bit_length(), base.denominator.bit_length()) - 1) * abs(exponent) > MAX_BITS:
                raise TooLargeError("too many digits")
            return base**exponent.numerator
        if base < 0 and exponent.denominator % 2:  # the real root of a negative number, as schools have it
            root = mpmath.power(as_mp(-base), as_mp(exponent))
            return -root if exponent.numerator % 2 else root
    size = abs(as_mp(exponent)) * (abs(mpmath.log(abs(as_mp(base)), 2)) if base else 1)
    if size > MAX_BITS:
        raise TooLargeError("too many digits")
    return mpmath.power(as_mp(base), as_mp(exponent))


def _series(node: Any, at: Mapping[str, Fraction]) -> Value:
    """A sum or product of finitely many terms, one by one; sympy's closed form of an infinite one."""
    ((index, low, high),) = node.limits
    if any(bound.has(sympy.oo, -sympy.oo) for bound in (low, high)):
        done = node.doit()
        if done == node:
            raise NoValueError("a series without a closed form")
        return _value(done, at)
    first, last = _whole(_value(low, at)), _whole(_value(high, at))
    if first is None or last is None:
        raise NoValueError("bounds that are no integers")
    if last - first > MAX_TERMS:
        raise TooLargeError("too many terms")
    terms = (_value(node.function, {**at, index.name: Fraction(step)}) for step in range(first, last + 1))
    return _sum(terms) if isinstance(node, sympy.Sum) else _product(terms)


def _whole(number: Value) -> int | None:
    return number.numerator if isinstance(number, Fraction) and number.denominator == 1 else None


def _factorial(number: Value) -> Value:
    if abs(as_mp(number)) > MAX_FACTORIAL:
        raise TooLargeError("a factorial of too many digits")
    whole = _whole(number)
    return mpmath.factorial(as_mp(number)) if whole is None else Fraction(math.factorial(whole))


def _binomial(above: Value, below: Value) -> Value:
    whole, part = _whole(above), _whole(below)
    if whole is None or part is None or whole < 0 or part < 0:
        return mpmath.binomial(as_mp(above), as_mp(below))
    if min(part, abs(whole - part)) * whole.bit_length() > MAX_BITS:
        raise TooLargeError("a binomial of too many digits")
    return Fraction(math.comb(whole, part))


def _floor(number: Value) -> Value:
    return Fraction(number.__floor__()) if isinstance(number, Fraction) else Fraction(int(mpmath.floor(_real(number))))


def _ceiling(number: Value) -> Value:
    return -_floor(-number)


def _real(number: Value) -> Any:
    if abs(mpmath.im(number)) > EQUAL * max(1, abs(number)):
        raise NoValueError("a complex number")
    return mpmath.re(number)


def _of(function: Any) -> Any:
    return lambda *arguments: function(*(as_mp(argument) for argument in arguments))


_FUNCTIONS: dict[str, Any] = {
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": _floor,
    "ceiling": _ceiling,
    "Abs": abs,
    "conjugate": _of(mpmath.conj),
    "re": _of(mpmath.re),
    "im": _of(mpmath.im),
    "sign": _of(mpmath.sign),
    "Min": min,
    "Max": max,
    **{
        name: _of(getattr(mpmath, name))
        for name in [
            "sin",
            "cos",
            "tan",
            "cot",
            "sec",
            "csc",
            "asin",
            "acos",
            "atan",
            "acot",
            "asec",
            "acsc",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "log",
            "gamma",
        ]
    },
}
