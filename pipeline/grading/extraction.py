r"""What a response's final answer is: its last box after the thought, else a clear final statement.

In: responses. Out: the text of the answer, as it stands there. No pattern here costs more than a few passes over
the text: every repeat has a bound, for a model may write a hundred thousand blanks.
"""

import re

from pipeline.prompts import split_thought

MAX_RESPONSE_CHARS = 200_000
"""The end of a longer response is read: the final answer stands there."""
MAX_STATEMENT_CHARS = 400
"""The end of a response whose last sentence is looked for."""
REPEATED = 8
"""How many of the last statements are looked at for one that is whole."""

_TAIL = re.compile(r"(?:\s{0,9}(?:<\|[^|<>]{1,30}\|>(?:user|assistant)?|I hope it is correct\.?))+$")
"""Tokens of a chat template, and the last words of Minerva's prompt."""
_FINAL = re.compile(r"\bfinal answer(?: is|:)", re.IGNORECASE)
_CLOSING = re.compile(r"\*\*Final Answer:?\*\*:?\s{0,9}\$?\\boxed\{[^{}]{1,100}\}\$?\s{0,9}$", re.IGNORECASE)


def final_answer(response: str, *, cut: bool = False) -> str | None:
    """The answer a response ends with, None where it gives none.

    Read in this order: the last box (several that stand side by side are one answer: a list); what follows the last
    "answer is", "Answer:", "####" or the like; the last formula or number of the last sentence. Of a response that was
    `cut` at a token budget only what had ended counts: a closed box, or a stated answer whose line had ended.
    """
    thought, answer = split_thought(response)
    answer = _TAIL.sub("", answer[-MAX_RESPONSE_CHARS:].rstrip())
    boxes = _boxes(answer)
    if boxes:
        later = _FINAL.search(answer, boxes[-1][3]) if len(answer) - boxes[-1][3] > 20 else None
        return (_stated(answer[later.start() :], cut=cut) if later else None) or _joined(answer, boxes) or None
    stated = _stated(answer, cut=cut)
    if stated is not None or cut:
        return stated or None
    if thought and _breaks_off(answer):  # the thought had come to its answer, the write-up of it has not
        closing = _CLOSING.search(thought[-MAX_STATEMENT_CHARS:])
        return last_boxed(closing.group()) if closing else None
    return _concluded(answer)


def gold_answer(gold: str) -> str:
    """The answer in a gold text: all of it, unless it is a whole solution."""
    opened = _BOX_OPENS.search(gold)
    if opened and not _boxes(gold):
        return gold[opened.end() :]
    return final_answer(gold) or gold if opened or len(gold) > MAX_STATEMENT_CHARS else gold


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, braces nested to any depth; None where there is none."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def last_number(text: str) -> str | None:
    """The last number in a text, thousands separators removed: a reading that no format can please."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return numbers[-1].replace(",", "") if numbers else None


# --- boxes ----------------------------------------------------------------------------------------

_BOX_OPENS = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
_BRACE = re.compile(r"\\[{}]|\\(?:boxed|fbox)\s{0,9}\{|[{}]")
_BARE_BOX = re.compile(r"\\boxed\s([^\s{}$\\]{1,20})")

Span = tuple[int, int, int, int]
"""A box: where its command starts, its content starts, its content ends, and it ends."""


def _boxes(text: str) -> list[Span]:
    """The complete boxes of a text that hold no other box, in order."""
    found: list[Span] = []
    opened: list[tuple[int, int] | None] = []  # of each open brace its box, None for a brace that is no box
    inner = -1  # where the last box that closed had opened: a box around it is its repetition
    for brace in _BRACE.finditer(text):  # in one pass: boxes that never close must not cost their square
        token = brace.group()
        if token in ("\\{", "\\}"):
            continue
        if token != "}":
            opened.append((brace.start(), brace.end()) if len(token) > 1 else None)
        elif opened:
            box = opened.pop()
            if box is not None and box[0] > inner:
                found.append((*box, brace.start(), brace.end()))
                inner = box[0]
    if not found:
        found = [(bare.start(), bare.start(1), bare.end(1), bare.end(1)) for bare in _BARE_BOX.finditer(text)]
    return found


_BETWEEN_BOXES = re.compile(
    r"""(?: \s | \\[()\[\],;:! ] | [$,;&*] | \\(?:quad|qquad|text|mathrm|mbox|textbf) | [{}]
        | \b(?:and|or)\b | \bfor\ (?:part\ )?\(?[a-z0-9]\)? | [A-Za-z](?:_\{?[0-9A-Za-z]\}?)?\ ?= )*""",
    re.VERBOSE,
)
"""What may stand between two boxes that are one answer: punctuation, "and", "or", "for part (a) and", "y_2 ="."""
_BETWEEN_CHARS = 60


def _joined(text: str, boxes: list[Span]) -> str:
    """The last box, with those before it that stand side by side with it: one list."""
    answer = [text[boxes[-1][1] : boxes[-1][2]].strip()]
    for before, after in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        between = text[before[3] : after[0]]
        if len(between) > _BETWEEN_CHARS or "\n\n" in between or not _BETWEEN_BOXES.fullmatch(between):
            break
        content = text[before[1] : before[2]].strip()
        if content not in answer:
            answer.insert(0, content)
    return ", ".join(answer)


# --- statements -----------------------------------------------------------------------------------

_STATEMENT = re.compile(
    r"""\b(?:final\s|correct\s)?answer(?:\s(?:to\b[^\n.:]{0,80}?|therefore|thus|here)\s?)?(?:\**\s{0,9}(?:is\b|are\b|=)|\**\s{0,3}:)[\s:*]{0,20}
      | \banswer(?:\}|\*\*)?[ \t]{0,3}(?=\\\[|\\\(|\$)
      | ^(?:\#{1,6}[ \t]|\*\*)?(?:final[ ])?answer\**:?\**[ \t]{0,9}\n\s{0,9}
      | ^(?:A:|\#{4})[ \t]{0,9}
      | (?:(?:最终|最后的?)?答案[是为：:]{1,2}|答[：:]|故[选填答]|应[选填])[\s:：*]{0,9}
      | \b(?:Ответ|Réponse|Respuesta|Antwort|Risposta|Resposta)\**[ ]?:[\s*]{0,9}""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""The words before a stated answer, in the languages that models answer in."""


def _stated(answer: str, *, cut: bool) -> str | None:
    """What follows the last "answer is"; "" where nothing or an unclosed box does, None where nothing is stated."""
    ends = [match.end() for match in _STATEMENT.finditer(answer)]
    for end in reversed(ends[-REPEATED:]):
        rest = answer[end:].lstrip(" }")
        math = _MATH_FIRST.match(rest)
        line, ended, _ = (math.group(), "\n", "") if math and "\n" in math.group() else rest.partition("\n")
        if not ended and len(ends) > 1 and _breaks_off(line):
            continue  # it says its answer again and again, until it runs out of tokens
        if (cut and not ended) or _BOX_OPENS.search(line):
            return ""
        return _bare(line[:MAX_STATEMENT_CHARS])
    return None


def _breaks_off(text: str) -> bool:
    """Whether a text ends inside of a formula."""
    line = text[text.rstrip().rfind("\n") + 1 :][-MAX_STATEMENT_CHARS:]
    dollars = line.count("$") % 2 == 1 and re.search(r"\$(?!\d)", line) is not None  # and no price
    return line.rfind("\\(") > line.rfind("\\)") or line.count("{") > line.count("}") or dollars


_MATH_FIRST = re.compile(r"(?:\$\$[^$]{1,400}\$\$|\\\[.{1,400}?\\\])", re.DOTALL)
_MATH = re.compile(
    r"\$\$([^$]{1,400})\$\$|\\\[(.{1,400}?)\\\]|\\\((.{1,400}?)\\\)|(?<![\\\d])\$((?:\\\$|[^$\n]){1,400})\$", re.DOTALL
)
_JOINED = re.compile(r"(?:\s|[,;.]|\band\b|\bor\b|[和或与、])*")
_SENTENCE_END = re.compile(r"\.(?:\s|$)|[。!?]")


def _bare(line: str) -> str:
    """A stated answer without what is said around it."""
    line = line.strip().strip("*").strip()
    formulas = list(_MATH.finditer(line))
    outside = _MATH.sub(" ", line)
    if formulas and _JOINED.fullmatch(outside):
        return ", ".join(_inside(formula) for formula in formulas)
    if len(formulas) == 1 and not re.search(r"\d", outside):
        return _inside(formulas[0]) + _percent_after(line[formulas[0].end() :])
    if _words(outside) > 2:
        return _told(line) or _ended(line)
    return _ended(line)


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


def _percent_after(text: str) -> str:
    """A percent sign that stands behind a formula: it is part of the answer."""
    return r"\%" if re.match(r"\s?(?:\\?%|percent\b|pct\b)", text) else ""


def _words(text: str) -> int:
    """How many words a text has, commands of LaTeX not counted."""
    return len(re.findall(r"(?<![\\\w])[^\W\d_]{2,}", text))


def _ended(line: str) -> str:
    return _SENTENCE_END.split(line.strip())[0].strip().rstrip("*").removesuffix(".").strip("* \t")


# --- sentences --------------------------------------------------------------------------------------

_VALUE = re.compile(
    rf"""{_MATH.pattern}
    | (?<![\w.,])(?:[$€£¥]\s?)?(?P<number>[-+−]?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?)""",
    re.DOTALL | re.VERBOSE,
)
_IS = re.compile(r"(?:\b(?:is|are|be|equals?|was|were)\b|'s\b|[=≈是为得])", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so|total|altogether|result|solution|gives?|get|find|have|must|when|matrix)\b|:|[因所]",
    re.IGNORECASE,
)
"""What a last sentence has that gives an answer, where it has no "is"."""


def _told(sentence: str, *, ended: bool = True) -> str | None:
    """The value that a sentence in words gives: the first behind its last "is", else its first.

    One that was not `ended` gives its value only where hardly a word comes after it.
    """
    copulas = [match.end() for match in _IS.finditer(_MATH.sub(lambda formula: "$" * len(formula.group()), sentence))]
    for start in (*copulas[-1:], 0):
        value = _VALUE.search(sentence, start)
        if value:
            after = sentence[value.end() :]
            if not ended and _words(after) > 2:
                return None
            return (value["number"].replace("−", "-") if value["number"] else _inside(value)) + _percent_after(after)
    return None


def _concluded(answer: str) -> str | None:
    """The value of the last sentence, where that concludes something or is all there is."""
    text = answer.strip()
    if not text or _BOX_OPENS.search(text):
        return None
    words = _words(_MATH.sub(" ", text))
    if (
        len(text) <= 200
        and words <= (2 if re.search(r"[\d\\$=]", text) else 1)
        and (_MATH.search(text) or "\n" not in text)
    ):
        return _bare(text) or None
    end = text[-MAX_STATEMENT_CHARS:]
    display = _DISPLAY.search(end)
    if display:
        return next(group for group in display.groups() if group is not None).strip()
    sentence = [part for part in re.split(r"(?<=[.!?。])\s|\n", end) if part.strip()][-1]
    if _breaks_off(sentence) or not (_IS.search(sentence) or _CONCLUDES.search(sentence)):
        return None
    return _told(sentence, ended=sentence.rstrip().endswith((".", "!", "。")))


_DISPLAY = re.compile(r"(?:\$\$([^$]{1,300})\$\$|\\\[((?:[^\\]|\\(?!\])){1,300})\\\])[\s.]{0,9}$")
