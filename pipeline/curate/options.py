r"""Multiple choice: the question without its options, and the value of the right one.

In: a problem and its answer. Out: an open question with a value for an answer, or why there is none. A student that
picks one of five letters is right once in five times without a thought, so what stays must have a value.
"""

import re
from dataclasses import dataclass, replace

from pipeline.grading import same_at_sight
from pipeline.grading.spelling import choice, normal
from pipeline.sources import RawRow

_LABEL = re.compile(
    r"""(?:(?<=\s)|(?<=^)|(?<=[.?!:,$\])}（）(]))
    (?:\\q?quad|\\hspace\{[^{}]{0,20}\}|\\ |\$|~){0,6}\s{0,6}
    (?: (?:\\(?:text|textbf|mathrm|mathbf|textsf|rm|bf)\s*\{?\s*){1,2}\(?\s*([A-H])\s*\)?[.:]?\s*\}{0,2}[.):]?
      | \{\\(?:bf|rm)\s*\(?([A-H])\)?\s*\}
      | \(([A-H])\) | ([A-H])[.):：、．]
    )(?=\W|\d|[A-Za-z])""",
    re.VERBOSE,
)
_HINT, _LETTER = re.compile(r"\bA\s?\)?[)}.:、：．]"), re.compile("[A-J]")
LEAST_OPTIONS, MOST_OPTIONS = 3, 8
_LONG_SPACE = re.compile(r"\s{9,}")
_GAP = re.compile(r"\\q?quad(?![a-z])")
_BEFORE = re.compile(r"^(?:\s|\\q?quad|\\[ ,;]|~|\})+")
_BEHIND = re.compile(r"(?:\s|\\q?quad|\\[ ,;]|~|[,;.(]|\\(?:text|textbf|mathrm|mathbf|textsf)\s*\{|\{\\bf){1,40}$")
_INSTRUCTION = re.compile(r"\s*(?:enter|write|give|choose|select) (?:only )?the letter\b.*$", re.IGNORECASE | re.DOTALL)
_INTRODUCTION = re.compile(
    r"\s*(?:options?|choices|answer choices)\s*:\s*$|\(\s*(?:\\quad)?\s*\)\s*$|[（(]\s*[）)]\s*$", re.IGNORECASE
)
_OPENING = re.compile(r"(?:(?<=\s)|^)\${1,2}\s*$|(?<=\$)\$\s*$|\\[\[(]\s*$")
_QUESTION = re.compile(
    r"\?|\b(?:find|compute|determine|calculate|evaluate|what|how|simplify|solve|is|are|equals?|has)\b|[=:]\s*$",
    re.IGNORECASE,
)
_ABOUT_OPTIONS = re.compile(
    r"(?:^|[.?!]\s*)Which\b|\b[Ww]hich (?:one )?of\b|(?<!, )\bwhich (?:could|can|cannot|must)\b|\bclosest to\b"
    r"|\bwhat (?:kind|type) of\b|\bis (?:always |never )?(?:a|an|not)\s*[:.]?$|下列|以下|哪"
)
"""Questions that mean nothing, or have several answers, without their options."""
_NONE_OF_THEM = re.compile(
    r"\b(?:none|all|both|neither|cannot be determined|not enough|impossible to|other)\b", re.IGNORECASE
)


_ASKS_FOR_A_LETTER = re.compile(
    r"\b(?:enter|type|choose|select|write) (?:only |the )?[\"'“]?[A-Z]\b|\bletters? (?:of|for|that|corresponding)\b"
    r"|\b[Ww]hich (?:one )?(?:of|is|are|statement|option)\b|\b[Ee]nter\b|下列|以下|哪|[（(]\s*[）)]|\bA[.)、．]"
)
"""Where none of these stands, a letter is the answer itself: a name, a point."""


@dataclass(frozen=True)
class Options:
    """A question, and its options by their letters."""

    stem: str
    values: dict[str, str]


def find_options(problem: str) -> Options | None:
    """The options at the end of a problem, labelled A, B, C, ... in this order; None where there are none."""
    problem = _GAP.sub(r" \g<0> ", _LONG_SPACE.sub("\n", problem))
    labels = [(next(filter(None, found.groups())), found) for found in _LABEL.finditer(problem)]
    for start in range(len(labels) - LEAST_OPTIONS, max(-1, len(labels) - 1 - MOST_OPTIONS), -1):
        run = labels[start:]
        if [letter for letter, _ in run] == [chr(65 + index) for index in range(len(run))]:
            ends = [found.start() for _, found in run[1:]] + [len(problem)]
            texts = [problem[found.end() : end] for (_, found), end in zip(run, ends, strict=True)]
            texts[-1] = _INSTRUCTION.sub("", texts[-1])
            values = {letter: _bare(text) for (letter, _), text in zip(run, texts, strict=True)}
            return Options(_stem(problem[: run[0][1].start()]), values)
    return None


def _bare(option: str) -> str:
    bare = _BEHIND.sub("", _BEFORE.sub("", option.rstrip("$ \n\t")))
    while bare.endswith("}") and bare.count("}") > bare.count("{"):
        bare = bare[:-1].rstrip()
    return bare.strip("$ ") if bare.count("$") % 2 or (bare.count("$") == 2 and bare[0] == bare[-1] == "$") else bare


def _stem(text: str) -> str:
    """The question without what introduces the options, the dollar that opens their formula among it."""
    return _INTRODUCTION.sub("", _OPENING.sub("", text).rstrip()).rstrip()


def open_question(row: RawRow, answer: str) -> tuple[RawRow, str] | str:
    """A multiple choice as an open question and its answer, anything else as it is; or why neither is possible."""
    options = find_options(row.problem or "") if _HINT.search(row.problem or "") else None
    picked = choice(normal(answer)) if _LETTER.search(answer) else None
    if options is None:
        asked = picked and not picked[1] and _ASKS_FOR_A_LETTER.search(row.problem or "")
        return f"the answer is {answer!r}, but its options are not found" if asked else (row, answer)
    letter = picked[0] if picked else ""
    value = (picked[1] if picked else "") or options.values.get(letter, "")
    if not letter:
        value = next((value for value in options.values.values() if same_at_sight(value, answer)), "")
        if not value:  # what looked like options is part of the problem
            return row, answer
    if not value:
        return f"the answer is {answer!r}, which is none of the options"
    about = _ABOUT_OPTIONS.search(options.stem) or _NONE_OF_THEM.search(value)
    if about:
        return f"asks for its options: {about.group()!r}"
    if not _QUESTION.search(options.stem) or any(
        _QUESTION.search(text) for text in options.values.values() if " " in text
    ):
        return "its question and its options cannot be told apart"
    return replace(row, problem=options.stem), value
