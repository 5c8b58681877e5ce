r"""The normal form of an answer's text: one spelling of what is written in many ways.

In: an answer, in LaTeX, ASCII or words. Out: its normal form (`normal`); of a normal form what is equal for equal text
(`key`), the letter of a multiple choice (`choice`). Everything is linear in the text; what it means is left to others.
"""

import re

MAX_CHARS = 2_000
"""No answer that anyone grades is longer; a longer one is compared as text only."""
ANGLE_FUNCTIONS = "sin|cos|tan|cot|sec|csc"
"""Functions of an angle, as a regex has them."""

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–—﹣－", "-"),
        **dict.fromkeys("  \u2009\u202f\u3000\u200a\u2002\u2003", " "),
        **dict.fromkeys("\u200b\ufeff\u2061\u2062", ""),
        **dict.fromkeys("’′‘`", "'"),
        **dict.fromkeys("“”\"", ""),
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "±": r"\pm ",
        "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "≈": r"\approx ", "θ": r"\theta ",
        "ℝ": r"\mathbb{R}", "，": ",", "；": ";", "：": ":", "（": "(", "）": ")", "。": "", "％": "%", "＝": "=",
        "【": "", "】": "", "、": ",", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⁄": "/",
    }
)  # fmt: skip

_RAISED = {ord(character): plain for character, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True)}
_LOWERED = {ord(character): plain for character, plain in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)}
_RAISED_RUN, _LOWERED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_LIMIT = r"(?![a-zA-Z])"
_REWRITES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|rm|bf|it){_LIMIT}\.?", ""),
        (r",\s*\\!\s*", ","),
        (r"\\!", ""),
        (rf"\\(?:color|textcolor)\s*\{{[^{{}}]*\}}|\\(?:large|Large|LARGE|huge|small|normalsize){_LIMIT}", ""),
        (r"\\(?:begin|end)\{(?:aligned|align\*?|cases|gathered|split)\}(?:\{[clr|]*\})?", " "),
        (r"\.\.\.|…|\\[lc]?dots" + _LIMIT, r"\\dots "),
        (rf"(?<!\\)\\[,;:> ]|\\q?quad{_LIMIT}|\\(?:hspace|vspace|phantom)\{{[^{{}}]*\}}|~|&(?=\s*=)", " "),
        (r"\{,\}", ","),
        (r"[\[(]\s*\\begin\{array\}(?:\{[clr|]*\})?", r"\\begin{pmatrix}"),
        (r"\\end\{array\}\s*[\])]", r"\\end{pmatrix}"),
        (rf"\\[dtc]frac{_LIMIT}", r"\\frac"),
        (rf"\\dbinom{_LIMIT}|\\tbinom{_LIMIT}", r"\\binom"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|texttt|textsf|textnormal|mbox|hbox|operatorname\*?|boldsymbol|bm|bold|emph|underline|overline(?=\{\\text))\s*\{", r"\\text{"),
        (r"\\math(?:rm|bf|it|sf)\s+(?=\w)", ""),
        (rf"\\(?:leq?|leqslant){_LIMIT}|<=", r"\\le "),
        (rf"\\(?:geq?|geqslant){_LIMIT}|>=", r"\\ge "),
        (rf"\\lt{_LIMIT}", "<"),
        (rf"\\gt{_LIMIT}", ">"),
        (rf"\\neq?{_LIMIT}|!=", r"\\ne "),
        (r"\\lbrace", r"\\{"),
        (r"\\rbrace", r"\\}"),
        (r"\\langle|\\lparen", "("),
        (r"\\rangle|\\rparen", ")"),
        (r"\\lbrack", "["),
        (r"\\rbrack", "]"),
        (r"\\lvert|\\rvert|\\vert|\\mid", "|"),
        (r"\\text\s*\{\s*(?:and|or|和|或)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?:(?![a-zA-Z])|(?=[a-zA-Z]\s?[=(]))|[和或]|\\(?:lor|land|vee|wedge)" + _LIMIT, ";"),
        (r"[,;](?:\s*,)*\s*;(?:\s*[,;])*", ";"),
        (r",(?:\s*,)+", ","),
        (r"\\?[$€£¥₹]|\\(?:pounds|euro)" + _LIMIT, ""),
        (r"\\text\s*\{\s*(?:percent|percentage|pct|\\?%)\s*\}|\\%|\b(?:percentage|percent|pct)\b", "%"),
        (r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z])|\\degree" + _LIMIT + r"|\\text\s*\{\s*degrees?\s*\}|(?<=\d)\s*(?:degrees?|deg)\b", r"^\\circ "),
        (r"\\sqrt\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\(frac|binom)\s*([\da-zA-Z])\s*([\da-zA-Z])", r"\\\1{\2}{\3}"),
        (r"\\(frac|binom)\s*([\da-zA-Z])\s*\{", r"\\\1{\2}{"),
        (r"(\\(?:frac|binom)\s*\{[^{}]*\})\s*([\da-zA-Z])", r"\1{\2}"),
        (r"\\frac\s*(\\[a-z]+)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:overline|overrightarrow|vec|bar|angle|triangle)\s*(?:\{\s*([A-Z]{2,3})\s*\}|([A-Z]{2,3})(?![a-zA-Z]))", r"\1\2"),
        (r"\\text\s*\{([^{}]*\d[^{}]*)\}", r" \1 "),
        (r"\(\s*\\?mod\s*(\w+)\s*\)|\\p?mod\s*\{?\s*(\w+)\s*\}?", r"\\pmod{\1\2}"),
        (r"\*\*", "^"),
        (r"\s+", " "),
    )
]  # fmt: skip
_ROOT_OF = re.compile(r"(?:\\sqrt|(?<![\\a-zA-Z])sqrt)\s*\(([^()]*)\)")
_ESCAPED_TWICE = re.compile(r"\\\\(?=[a-zA-Z])")
"""Commands as JSON has them; in a matrix or in cases they are ends of rows."""
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def normal(answer: str) -> str:
    """One spelling of an answer: commands, spaces, dashes, currency signs and dressing made equal."""
    text = _RAISED_RUN.sub(lambda run: "^{" + run.group().translate(_RAISED) + "}", answer)
    text = _LOWERED_RUN.sub(lambda run: "_{" + run.group().translate(_LOWERED) + "}", text).translate(_CHARACTERS)
    if "\\begin" not in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    for _ in range(8):  # from the innermost on
        text, changed = _ROOT_OF.subn(r"\\sqrt{\1}", text)
        if not changed:
            break
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _stripped(text)


def _stripped(text: str) -> str:
    """A text without the delimiters and the punctuation around it."""
    for _ in range(8):
        bare = (
            text.strip(" :=,;\n").lstrip("+").removeprefix("\\approx").removeprefix("\\sim").removeprefix("\\therefore")
        )
        bare = bare.rstrip("\\") if bare.endswith("\\") else bare
        for opening, closing in (("\\[", "\\]"), ("\\(", "\\)")):
            bare = bare.removeprefix(opening).removesuffix(closing)
        bare = bare.rstrip(".") if not bare.endswith("\\.") else bare
        if bare[:1] == "." and not bare[1:2].isdigit():
            bare = bare.lstrip(".")
        if bare == text:
            break
        text = bare
    return text


def key(text: str) -> str:
    """What is equal for equal text: a normal form without spaces and `\\text{}`, words without their case."""
    text = _DIGITS_APART.sub("_", TEXT.sub(r" \1 ", text).strip())
    return _WORDS.sub(lambda word: word.group().casefold(), "".join(text.split()))


INTEGER = re.compile(r"-?\d+")


def spelling_key(answer: str) -> str:
    """What is equal for answers of any length that are spelt alike."""
    if INTEGER.fullmatch(answer):
        return answer
    return key(normal(answer)) if len(answer) <= MAX_CHARS else "".join(answer.split())


_DIGITS_APART = re.compile(r"(?<=\d)\s+(?=\d)")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")


def one_case(gold: str, answer: str) -> tuple[str, str]:
    """Both answers with letters of one case, unless one of them uses a letter in both: there r is not R."""
    letters = [set(_LETTERS.findall(_COMMAND.sub(" ", text))) for text in (gold, answer)]
    if any({letter.swapcase() for letter in used} & used for used in letters):
        return gold, answer
    return _lowered(gold), _lowered(answer)


def _lowered(text: str) -> str:
    return _COMMAND_OR_LETTER.sub(
        lambda found: found.group() if len(found.group()) > 1 else found.group().lower(), text
    )


_COMMAND = re.compile(r"\\mathbb\s*\{?[A-Z]\}?|\\[a-zA-Z]+")
_LETTERS = re.compile(r"[a-zA-Z]")
_COMMAND_OR_LETTER = re.compile(_COMMAND.pattern + r"|[A-DF-HJ-Z]")
"""E and I stay what they are: e and i are numbers."""

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer|选项?|故选|所以选)\s*:?\s*)?(?:\(\s*([A-J])\s*\)|([A-J])(?=[.):]\s|[.):]?$)[.):]?)\s*(.*)",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"^[,;]|\([A-J]\)|(?<![a-zA-Z])[A-J](?:[.):]|$)|[,;]\s*[A-J](?![a-zA-Z])")
_CHOICES = re.compile(r"[A-J](?:[\s,;]*[A-J]){1,5}")


def choice(text: str) -> tuple[str, str] | None:
    """The letter of a multiple choice and what stands behind it: of "(C) 12" C and 12. None for other normal forms.

    Several letters, where several are asked for, are one choice: "A, C" is AC.
    """
    text = TEXT.sub(r"\1", text).strip()
    if _CHOICES.fullmatch(text):
        letters = sorted(re.findall("[A-J]", text))
        return ("".join(letters), "") if len(set(letters)) == len(letters) else None
    found = _CHOICE.fullmatch(text)
    letter = (found[1] or found[2]) if found else ""
    if found is None or not letter.isupper() or _OTHER_CHOICE.search(found[3]):
        return None
    return letter, found[3].strip()
