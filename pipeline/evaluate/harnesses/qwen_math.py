r"""Qwen2.5-Math's evaluation, which many papers on reasoning models use: generous in what it reads and in what is equal.

The answer is the last box, else what follows the last "he answer is", else the last number. Equal are texts, numbers to
a relative 1e-4, also where one is a hundred times the other (0.5, 50 and 50%), lists and matrices part by part, and
formulas that sympy finds equal or whose values are equal to 1e-4.
Source: github.com/QwenLM/Qwen2.5-Math, evaluation/parser.py (extract_answer, strip_string), grader.py (math_equal).
Left out: sympy's parse_expr, which evaluates what it reads, and numbers in words that are more than one word.
"""

import re
from math import isclose
from typing import Any

from pipeline.evaluate.harnesses.latex import in_braces, plain_tree, tree, whole_fractions
from pipeline.grading.child import Judged

LIMIT_S = 3.0
"""As there."""
TOLERANCE = 1e-4


def judge(gold: str, response: str) -> Judged:
    """The verdict of Qwen2.5-Math's evaluation."""
    answer = spelling(_extracted(response))
    if not answer:
        return "unparsable", "no_answer", None
    return "correct" if _equal(answer, spelling(spelling(gold))) else "incorrect", "math_equal", answer


# --- the answer -------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d*\.?\d+")


def _extracted(response: str) -> str:
    text = _read(response.replace("ки", ""))
    text = re.sub(r"\n\s*", "", text).removeprefix(":").removesuffix(".").removesuffix("/")
    return spelling(text)


def _read(text: str) -> str:
    if "final answer is $" in text and "$. I hope" in text:  # Minerva's sentence
        return text.partition("final answer is $")[2].partition("$. I hope")[0].strip()
    if "boxed" in text:
        rest = text.rpartition("boxed")[2]
        return (in_braces(rest, closed=False) or "") if rest.startswith("{") else rest.partition("$")[0].strip()
    for words in ("he answer is", "final answer is"):
        if words in text:
            return text.rpartition(words)[2].strip()
    if "答案是" in text:
        return text.partition("答案是")[2].partition("答案是")[0].strip().partition("\n\n")[0].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return numbers[-1] if numbers else ""


# --- its spelling -----------------------------------------------------------------------------------

_UNITS = """
    east|degree|mph|kmph|ft|m sqaure|m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|tile|per|dm|lt
    |gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|soldier|pie|bc|excess|st|inches|noon|percent|by|gal
    |kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|coin|sq . m|gallon|° f|profit|minw|yr|women|feet|am|pm|hr|cu cm|square|are
    |rupee|rounds|cubic|cc|mtr|s|ohm|number|day|hour|minute|min|second|man|woman|sec|cube|mt|sq inch|mp|∏ cm ³|hectare|more
    |unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|liter|loss|yard|pure|year|increase|decrease|d|less|Surface|litre
    |pi sq m|s .|metre|meter|inch
"""
_UNIT_PATTERNS = [
    re.compile(rf"(^|\W){unit}($|\W)")
    for plural in ("", "s")
    for unit in (f"{word.strip()}{plural}" for word in _UNITS.split("|"))
]
_WORDS = {word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split())}  # fmt: skip
_BEFORE_UNITS = (
    ("\\!", ""), ("bmatrix", "pmatrix"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\neq", "\\ne"), ("\\leq", "\\le"),
    ("\\geq", "\\ge"), ("\\left", ""), ("\\right", ""), ("\\{", "{"), ("\\}", "}"),
)  # fmt: skip
_AFTER_UNITS = (("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""), ("\\(", ""), ("\\)", ""))
_NAMES = ("x=", "y=", "z=", "x\\in", "y\\in", "z\\in", "x\\to", "y\\to", "z\\to")
_SIGNS = (
    *((name, "") for name in _NAMES), ("\\emptyset", "{}"), ("(-\\infty,\\infty)", "\\mathbb{R}"), ("\\%", ""), ("%", ""),
    (" .", " 0."), ("{.", "{0."), ("infinity", "\\infty"),
)  # fmt: skip


def spelling(answer: str) -> str:
    """An answer in Qwen2.5-Math's spelling: without units, percent signs, names of variables and blanks."""
    text = _rewritten(answer.strip().replace("\n", "").rstrip("."), _BEFORE_UNITS[:1])
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text).replace("\\end{array}", "\\end{pmatrix}")
    text = _without_units(_rewritten(text, _BEFORE_UNITS[1:]))
    text = _rewritten(text, _AFTER_UNITS)
    text = re.sub(r"\\text\{(.*?)\}", r"\1", _WORDS.get(text.strip().lower(), text))
    text = _rewritten(text, _SIGNS)
    text = text if "\\infty" in text else text.replace("inf", "\\infty")
    text = re.sub(r"\\mbox{.*?}", "", text.replace("and", "").replace("\\mathbf", ""))
    text = text.replace("j", "i") if "i" not in text else text
    text = re.sub(r"(\d+)\.0*$", r"\1", re.sub(r"(\d+)\.0*([^\d])", r"\1\2", text))
    text = f"0{text}" if text.startswith(".") else text
    name, *values = text.split("=")
    text = values[0] if len(values) == 1 and len(name) <= 2 else text
    text = whole_fractions(re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", ""))
    return _fraction(text)


def _rewritten(text: str, rewrites: tuple[tuple[str, str], ...]) -> str:
    for before, after in rewrites:
        text = text.replace(before, after)
    return text


def _without_units(text: str) -> str:
    """A text without a last `\\text{...}` and without words that are units, unless nothing would be left."""
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    for pattern in _UNIT_PATTERNS * 2:
        text = pattern.sub(r"\1\2", text) or text
    return text


def _fraction(text: str) -> str:
    numerator, *denominators = text.split("/")
    whole = re.compile(r"-?\d+|.*sqrt.*", re.DOTALL)
    if len(denominators) == 1 and whole.fullmatch(numerator) and whole.fullmatch(denominators[0]):
        return f"\\frac{{{numerator}}}{{{denominators[0]}}}"
    return text


# --- equality ---------------------------------------------------------------------------------------

_LIST = re.compile(r"[(\[].+[)\]]")
_MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)


def _equal(answer: str, gold: str) -> bool:
    """Whether two spelled answers are equal."""
    answer, gold = answer.strip(), gold.strip()
    if answer.lower() == gold.lower() or (gold in tuple("ABCDE") and _choice(answer) == gold):
        return True
    number, wanted = _number(answer), _number(gold)
    if number is not None and wanted is not None:
        return any(isclose(value, number, rel_tol=TOLERANCE) for value in (wanted / 100, wanted, wanted * 100))
    if not answer:
        return False
    if "pmatrix" in answer and "pmatrix" not in gold:
        gold = _columns(gold)
    return (
        _equal_bare(answer, gold)
        or _equal_parts(answer, gold)
        or _equal_equations(answer, gold)
        or _same_formula(answer, gold)
    )


def _choice(answer: str) -> str:
    letters = re.findall(r"\b[A-E]\b", answer.upper())
    return letters[-1] if letters else ""


def _number(text: str) -> float | None:
    digits = text.replace(",", "")
    percent = digits.endswith("%")
    try:
        return float(digits.removesuffix("%").removesuffix("\\")) / 100 if percent else float(digits)
    except ValueError:
        return None


def _columns(gold: str) -> str:
    """A gold answer {1,2} as a matrix."""
    found = (inside.strip("{}").replace(",", "\\") for inside in re.findall(r"\{.*,.*\}", gold))
    return ", ".join(f"\\begin{{pmatrix}}{inside}\\end{{pmatrix}}" for inside in found)


def _equal_bare(answer: str, gold: str) -> bool:
    """Whether two texts are the same without round and curly brackets, and square ones around a list of no other kind."""
    around = answer[:1] + answer[-1:]
    if (around == "[]" and gold[:1] != "(") or (around == "()" and gold[:1] != "["):
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    return re.sub(r"[{}()]", "", answer).lower() == re.sub(r"[{}()]", "", gold).lower()


def _equal_parts(answer: str, gold: str) -> bool:
    """Lists, tuples and intervals part by part, whatever their brackets; matrices too."""
    if _LIST.match(answer) and _LIST.match(gold) and _all_equal(answer[1:-1].split(","), gold[1:-1].split(",")):
        return True
    given, wanted = _MATRIX.fullmatch(answer), _MATRIX.fullmatch(gold)
    if given is None or wanted is None:
        return False
    rows, wanted_rows = ([row.strip() for row in each[1].split("\\\\") if row.strip()] for each in (given, wanted))
    return len(rows) == len(wanted_rows) and all(
        _all_equal(row.split("&"), wanted_row.split("&")) for row, wanted_row in zip(rows, wanted_rows, strict=True)
    )


def _all_equal(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(_equal, parts, wanted))


def _equal_equations(answer: str, gold: str) -> bool:
    """Two equations whose sides differ by the same; `x = 5` and 5."""
    sides, wanted = answer.split("="), gold.split("=")
    if len(sides) == len(wanted) == 2:
        given, difference = (f"{left.strip()} - ({right.strip()})" for left, right in (sides, wanted))
        return _same_formula(given, difference) or _same_formula(f"-({given})", difference)
    if len(sides) == 2 and len(wanted) == 1 and len(sides[0].strip()) <= 2:
        return _equal(sides[1], gold)
    if len(wanted) == 2 and len(sides) == 1 and len(wanted[0].strip()) <= 2:
        return _equal(answer, wanted[1])
    return False


def _same_formula(answer: str, gold: str) -> bool:
    """Whether sympy finds two formulas equal, or their values equal to the tolerance."""
    import sympy

    given, wanted = _parsed(answer), _parsed(gold)
    tests = (
        lambda: given == wanted or str(given) == str(wanted),
        lambda: given.equals(wanted) or sympy.simplify(given - wanted) == 0,
        lambda: abs(given.lhs - given.rhs).equals(abs(wanted.lhs - wanted.rhs)),
        lambda: isclose(float(sympy.N(wanted)), float(sympy.N(given)), rel_tol=TOLERANCE),
        lambda: given.shape == wanted.shape and _rounded(given).equals(_rounded(wanted)),
    )
    return any(map(_holds, tests))


def _parsed(text: str) -> Any:
    """A formula's tree, or its text where it cannot be parsed."""
    for parser in (plain_tree, tree):
        for latex in (text.replace("\\\\", "\\"), text):
            try:
                return parser(latex)
            except MemoryError:
                raise
            except Exception:  # the parser raises of every kind
                continue
    return text


def _rounded(matrix: Any) -> Any:
    return matrix.applyfunc(lambda entry: round(entry, 3))


def _holds(test: Any) -> bool:
    """Whether a test says yes: one that does not fit what was parsed raises, and says no."""
    try:
        return bool(test())
    except MemoryError:
        raise
    except Exception:  # sympy raises of every kind
        return False
