r"""What the harnesses do with LaTeX in the same way: braces matched, short fractions written out, formulas parsed."""

import re
from typing import Any


def in_braces(text: str, *, closed: bool) -> str | None:
    r"""What stands in the braces that a text begins with; None where they do not close, or the rest unless `closed`.

    Escaped braces count as braces: as a rule they come in pairs.
    """
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:index]
    return None if closed else text[1:]


_SHORT = re.compile(r"\\frac([^{])(\{|.)")


def whole_fractions(text: str) -> str:
    r"""`\frac12` and `\frac1{72}` with all their braces."""
    return _SHORT.sub(lambda short: f"\\frac{{{short[1]}}}" + ("{" if short[2] == "{" else f"{{{short[2]}}}"), text)


_COMMA = re.compile(r",(?!\s*\d{3}(?!\d))")
_UNKNOWN = re.compile(r"[%;π]|(?<!\d)\.\d")


def plain_tree(latex: str) -> Any:
    r"""A formula as sympy's `parse_latex` reads it. Raises ValueError, or what the parser raises.

    One formula, up to the first comma that separates no thousands; no set, interval or matrix; `2\frac{1}{2}` is a
    product. That parser itself wants another version of ANTLR than Math-Verify's.
    """
    import sympy
    from sympy.core.relational import Relational

    found = tree(re.sub(r"(?<=\d)\s*(?=\\frac)", r"\\cdot ", _COMMA.split(latex)[0]))
    if _UNKNOWN.search(latex) or not isinstance(found, sympy.Expr | Relational):
        raise ValueError(f"no plain formula: {latex}")
    return found


def tree(latex: str) -> Any:
    """A formula, set, interval or matrix as a sympy tree. Raises what the parser raises.

    The parser is latex2sympy2_extended, the successor of the one that Qwen2.5-Math's evaluation has.
    """
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    return latex2sympy(latex, normalization_config=None, conversion_config=ConversionConfig(lowercase_symbols=False))
