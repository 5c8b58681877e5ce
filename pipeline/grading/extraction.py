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
MAX_BOXES = 64
REPEATED = 8
"""How many of the last statements are looked at for one that is whole, and how many wrappings are taken off."""

_FINAL = re.compile(r"\b(?:final )?answer\s?(?:is|:)[:\s*]{0,9}(?=\$|\\[(\[]|-?\d)", re.IGNORECASE)
_CLOSING = re.compile(r"\*\*Final Answer:?\*\*:?\s{0,9}\$?\\boxed\{[^{}]{1,100}\}\$?\s{0,9}$", re.IGNORECASE)
_THOUGHT = re.compile(r"<think(?:ing)?>.{0,200000}?(?:</think(?:ing)?>|$)", re.DOTALL)
_UNSEEN = re.compile(
    r"\\(?:[hv]?phantom|color\s{0,9}\{white\})\s{0,9}\{(?:[^{}]|\{[^{}]{0,200}\}){0,200}\}|<!--[^<>]{0,2000}-->"
)


def final_answer(response: str, *, cut: bool = False) -> str | None:
    """The answer a response ends with, None where it gives none.

    Read in this order: the last box (several that stand side by side are one answer: a list); what follows the last
    "answer is", "Answer:", "####" or the like; the value of the last sentence. Of a response that was `cut` at a token
    budget only what had ended counts: a closed box, or a stated answer whose line had ended.
    """
    thought, answer = split_thought(response)
    answer = _seen(answer[-MAX_RESPONSE_CHARS:])
    boxes = _boxes(answer)
    if boxes:
        return _said_later(answer, boxes[-1][3]) or _joined(answer, boxes) or None
    stated = _stated(answer, cut=cut)
    if stated is not None or cut:
        return stated or None
    if thought and _breaks_off(answer):  # the thought had come to its answer, the write-up of it has not
        closing = _CLOSING.search(thought[-MAX_STATEMENT_CHARS:])
        return last_boxed(closing.group()) if closing else None
    return _concluded(answer)


def _said_later(answer: str, box_end: int) -> str | None:
    """The value of an "answer is" behind the last box, where a value follows at once and something after it."""
    later = _FINAL.search(answer, box_end)
    value = _VALUE.match(answer, later.end()) if later else None
    return _said(value) if value and value.end() < len(answer) else None


def _seen(answer: str) -> str:
    """The part of a response that a reader sees as the answer: no thoughts, no hidden text, no tokens of a template."""
    if "</think>" in answer:
        answer = answer.rpartition("</think>")[2]
    if "<think" in answer:
        answer = _THOUGHT.sub(" ", answer)
    if "phantom" in answer or "<!--" in answer or "{white}" in answer:
        answer = _UNSEEN.sub(" ", answer)
    for _ in range(REPEATED):
        answer = answer.rstrip()
        if answer.endswith(("|>user", "|>assistant")):
            answer = answer.removesuffix("user").removesuffix("assistant")
        start = answer.rfind("<|", -40)
        if answer.endswith("|>") and start >= 0:
            answer = answer[:start]
        answer = answer.removesuffix(_MINERVA)
    return answer


_MINERVA = "I hope it is correct."
"""The last words that Minerva's prompt taught many models."""


def gold_answer(gold: str) -> str:
    """The answer in a gold text: all of it, unless it is a whole solution or a sentence."""
    opened = _BOX_OPENS.search(gold)
    if opened and not _boxes(gold):
        return gold[opened.end() :]
    told = len(gold) > MAX_STATEMENT_CHARS or _STATEMENT.search(gold) or _words(_MATH.sub(" ", gold)) > 4
    return final_answer(gold) or gold if opened or told else gold.strip("* ")


def gsm8k_answer(solution: str) -> str | None:
    """What follows `####` in the last line, as GSM8K's solutions end (arXiv 2110.14168); None for any other text."""
    solution = solution.rstrip()
    last_line = solution[solution.rfind("\n") + 1 :]
    return last_line[4:].strip() or None if last_line.startswith("####") else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, braces nested to any depth; None where there is none."""
    boxes = _boxes(text)
    return _content(text, boxes[-1]) if boxes else None


def after_last_box(text: str) -> str | None:
    """What follows the last complete box; None where there is none."""
    boxes = _boxes(text)
    return text[boxes[-1][3] :] if boxes else None


def last_number(text: str) -> str | None:
    """The last number in a text, thousands separators removed: a reading that no format can please."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return numbers[-1].replace(",", "") if numbers else None


# --- boxes ----------------------------------------------------------------------------------------

_BOX_OPENS = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
_BRACE = re.compile(r"\\[{}]|\\(?:boxed|fbox)\s{0,9}\{|[{}]")
_BARE_BOX = re.compile(r"\\boxed\s?([^\s{}$\\]{1,20})")

Span = tuple[int, int, int, int]
"""A box: where its command starts, its content starts, its content ends, and it ends."""


def _boxes(text: str) -> list[Span]:
    """The complete boxes of a text that stand in no other box, in order."""
    found: list[Span] = []
    opened: list[tuple[int, int] | None] = []  # of each open brace its box, None for a brace that is no box
    for brace in _BRACE.finditer(text):  # in one pass: boxes that never close must not cost their square
        token = brace.group()
        if token in ("\\{", "\\}"):
            continue
        if token != "}":
            opened.append((brace.start(), brace.end()) if len(token) > 1 else None)
        elif opened:
            box = opened.pop()
            if box is not None:
                while found and found[-1][0] > box[0]:
                    found.pop()
                found.append((*box, brace.start(), brace.end()))
    if not found:
        found = [(bare.start(), bare.start(1), bare.end(1), bare.end(1)) for bare in _BARE_BOX.finditer(text)]
    return found


def _content(text: str, box: Span) -> str:
    """What is in a box: a box in it adds nothing, a minus right before it belongs to it."""
    content = _BOX_OPENS.sub("{", text[box[1] : box[2]]).strip()
    for _ in range(REPEATED):  # not until none is left: a hundred thousand braces must not cost their square
        if not (content.startswith("{") and _closes_at_end(content)):
            break
        content = content[1:-1].strip()
    minus = text[box[0] - 1 : box[0]] == "-" and not text[: box[0] - 1].rstrip()[-1:].isalnum()
    return f"-{content}" if minus and content else content


def _closes_at_end(content: str) -> bool:
    depth = 0
    for index, character in enumerate(content):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return index == len(content) - 1
    return False


_BETWEEN_BOXES = re.compile(
    r"""(?: \s | \\[()\[\],;:! ] | [$,;&*.] | \\(?:quad|qquad|text|mathrm|mbox|textbf) | [{}]
        | \b(?:and|or|maybe|perhaps|alternatively|also|else)\b | \bfor\ (?:part\ )?\(?[a-z0-9]\)?
        | [A-Za-z](?:_\{?[0-9A-Za-z]\}?)?\ ?= )*""",
    re.VERBOSE | re.IGNORECASE,
)
"""What may stand between two boxes that are one answer: punctuation, "and", "or", "for part (a) and", "y_2 ="."""
_BETWEEN_CHARS = 60
_NAMED = re.compile(r"([A-Za-z](?:_\{?[0-9A-Za-z]\}?)?)\s?=\s?$")
_DENIED = re.compile(r"(?:\bnot|n't|\\neq?|≠|\b(?:less|greater|more) than)[\s:]{0,3}(?:\$|\\\(|\\\[)?\s?$")


def _joined(text: str, boxes: list[Span]) -> str:
    """The last box, with those before it that stand side by side with it: one list."""
    if _DENIED.search(text[max(0, boxes[-1][0] - 30) : boxes[-1][0]]):
        return ""
    first = len(boxes) - 1
    while first > 0 and len(boxes) - first < MAX_BOXES:
        between = text[boxes[first - 1][3] : boxes[first][0]]
        apart = "\n\n" in between and not re.search(r"\bor\b", between)
        if len(between) > _BETWEEN_CHARS or apart or not _BETWEEN_BOXES.fullmatch(between):
            break
        first -= 1
    contents = [_content(text, box) for box in boxes[first:]]
    if len(set(contents)) > 1:  # x = box, y = box: the names count
        names = [_NAMED.search(text[max(0, box[0] - 12) : box[0]]) for box in boxes[first:]]
        contents = [
            f"{name[1]} = {content}" if name else content for name, content in zip(names, contents, strict=True)
        ]
    return ", ".join(dict.fromkeys(contents))


# --- statements -----------------------------------------------------------------------------------

_STATEMENT = re.compile(
    r"""\b(?:final\s|correct\s)?answer(?:\s(?:to\b[^\n.:]{0,80}?|therefore|thus|here)\s?)?(?:\**\s{0,9}(?:is\b|are\b|=)|\**\s{0,3}:)[\s:*]{0,20}
      | \banswer(?:\}|\*\*)?[ \t]{0,3}(?=\\\[|\\\(|\$)
      | ^(?:\#{1,6}[ \t]|\*\*)?(?:final[ ])?answer\**:?\**[ \t]{0,9}\n\s{0,9}
      | ^(?:A:|\#{4})[ \t]{0,9}
      | (?:(?:最终|最后的?|故)?答案\s?[是为：:]{1,2}|答[：:]|(?:故|应|因此|所以)[选填])[\s:：*]{0,9}
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
        line, ended, after = (math.group(), "\n", "") if math and "\n" in math.group() else rest.partition("\n")
        if not ended and len(ends) > 1 and _breaks_off(line):
            continue  # it says its answer again and again, until it runs out of tokens
        if (cut and not ended) or _BOX_OPENS.search(line):
            return ""
        if after.strip() and _words(_MATH.sub(" ", line[:MAX_STATEMENT_CHARS])) > 2 and not cut:
            return None  # "The answer is not obvious": a sentence on the way
        return "" if _NO_ANSWER.match(line.strip()) else _bare(line[:MAX_STATEMENT_CHARS])
    tagged = _TAGGED.search(answer[-MAX_STATEMENT_CHARS:])
    return tagged[1].strip() if tagged else None


_NO_ANSWER = re.compile(r"(?:not|unknown|unclear|(?:less|greater|more|fewer) than|at (?:least|most))\b", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>([^<>]{1,200})</answer>\s{0,9}$")


def _breaks_off(text: str) -> bool:
    """Whether a text ends inside of a formula."""
    line = text[text.rstrip().rfind("\n") + 1 :][-MAX_STATEMENT_CHARS:]
    dollars = line.count("$") % 2 == 1 and re.search(r"\$(?!\d)", line) is not None  # and no price
    return line.rfind("\\(") > line.rfind("\\)") or line.count("{") > line.count("}") or dollars


_MATH_FIRST = re.compile(r"(?:\$\$[^$]{1,400}\$\$|\\\[.{1,400}?\\\])", re.DOTALL)
_MATH = re.compile(
    r"\$\$([^$]{1,400})\$\$|\\\[(.{1,400}?)\\\]|\\\((.{1,400}?)\\\)|(?<![\\\d])\$((?:\\\$|[^$\n]){1,400})\$", re.DOTALL
)
_BECAUSE = re.compile(r",?\s(?:because|since|as)\s")
_JOINED = re.compile(r"(?:\s|[,;.]|\band\b|\bor\b|[和或与、])*")
_SENTENCE_END = re.compile(r"\.(?:\s|$)|[。?]|(?<![\w)])!|!$")  # a factorial ends no sentence


_REMARK = re.compile(r"\s?\((?:[a-z]{2,20}\s?){1,4}\)$")


def _bare(line: str) -> str:
    """A stated answer without what is said around it."""
    line = _REMARK.sub("", line.strip().strip("*").strip())
    formulas = list(_MATH.finditer(line))
    outside = _MATH.sub(" ", line)
    if formulas and _JOINED.fullmatch(outside):
        return ", ".join(_inside(formula) for formula in formulas)
    if len(formulas) == 1 and not re.search(r"\d", outside):
        return _inside(formulas[0]) + _percent_after(line[formulas[0].end() :])
    if _words(outside) > 2:
        return _told(_SENTENCE_END.split(line)[0] if not formulas else line) or _ended(line)
    return _ended(line)


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


def _blanked(text: str) -> str:
    """A text of the same length without its formulas."""
    return _MATH.sub(lambda formula: "$" * len(formula.group()), text)


def _percent_after(text: str) -> str:
    """A percent sign that stands behind a formula: it is part of the answer."""
    return r"\%" if re.match(r"\s?(?:\\?%|percent\b|pct\b)", text) else ""


def _words(text: str) -> int:
    """How many words a text has, commands of LaTeX not counted."""
    return len(_PLAIN_WORD.findall(_ENVIRONMENT.sub(" ", text)))


_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z*]{1,20}\}")
_PLAIN_WORD = re.compile(r"(?<![\\\w])(?!(?:sqrt|sin|cos|tan|log|ln|pi|frac)(?![^\W\d_]))[^\W\d_]{2,}")


def _ended(line: str) -> str:
    return _SENTENCE_END.split(_BECAUSE.split(line.strip())[0])[0].strip().rstrip("*").removesuffix(".").strip("* \t")


# --- sentences --------------------------------------------------------------------------------------

_VALUE = re.compile(
    rf"""{_MATH.pattern}
    | (?P<pair>\(-?[\d.]{{1,12}}(?:,\s?-?[\d.]{{1,12}}){{1,5}}\))
    | (?<![A-Za-z0-9_.,])(?:[$€£¥]\s?)?(?P<number>[-+−]?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?)""",
    re.DOTALL | re.VERBOSE,
)
_AND = re.compile(r"\s?(?:,|;|、)?\s?(?:and\b|or\b|[和或])?\s?(?:[a-zA-Z]\s?=\s?)?")
_IS = re.compile(
    r"(?:\b(?:is|are|be|equals?|was|were)\b|\b(?:it|that)'s\b|(?<![a-zA-Z])(?<![a-zA-Z]\s)=|[≈是为得]|[有共]为?)",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"\s(?:when|if|where|because|since|for which|every|per)\s", re.IGNORECASE)
_NO_VALUE = re.compile(
    r"\bnot\b|n't\b|\bcannot\b|\b(?:less|greater|more|fewer|at) (?:than|least|most)\b", re.IGNORECASE
)


def _told(sentence: str, *, ended: bool = True) -> str | None:
    """The values that a sentence in words gives: those behind its last "is", else its first.

    What follows "when" or "if" is an aside; a sentence with "not" or "less than" gives none, and one that was not
    `ended` gives its value only where hardly a word comes after it.
    """
    blank = _blanked(sentence)
    aside = _ASIDE.search(blank)
    told = _IS.search(blank, 0, aside.start()) if aside else None
    if aside and told and _VALUE.search(sentence, told.end(), aside.start()):
        blank = blank[: aside.start()]
    copulas = [match.end() for match in _IS.finditer(blank)]
    for start in (*copulas[-1:], 0):
        value = _VALUE.search(sentence, start, len(blank))
        if value:
            break
    else:
        return None
    if _NO_VALUE.search(blank, start or max(0, value.start() - 25), value.start()):
        return None
    found = [_said(value)]
    end = value.end()
    while len(found) < MAX_BOXES:
        joint = _AND.match(sentence, end)
        following = _VALUE.match(sentence, joint.end()) if joint and joint.group().strip() else None
        if following is None:
            break
        found.append(_said(following))
        end = following.end()
    after = sentence[end : len(blank)]
    if not ended and _words(after) > 2:
        return None
    return ", ".join(found) + _percent_after(after)


def _said(value: re.Match[str]) -> str:
    return value["pair"] or (value["number"].replace("−", "-") if value["number"] else _inside(value))


def _concluded(answer: str) -> str | None:
    """The value of the last sentence."""
    text = answer.strip()
    if not text or _BOX_OPENS.search(text):
        return None
    if len(text) <= 200 and ("\n" not in text or _MATH.search(text)) and not _ASIDE.search(text):
        words = _words(_MATH.sub(" ", text))
        if words == 0 or (words == 1 and not re.search(r"\d", text)):
            return _bare(text) or None
    end = text if len(text) <= MAX_STATEMENT_CHARS else text[-MAX_STATEMENT_CHARS:].partition(" ")[2]  # whole words
    display = _DISPLAY.search(end)
    if display:
        return _inside(display)
    blank = _blanked(end)
    starts = [match.end() for match in re.finditer(r"(?<=[.!?])\s+|。|\n", blank) if blank[match.end() :].strip()]
    sentence = end[starts[-1] if starts else 0 :]
    return None if _breaks_off(sentence) else _told(sentence, ended=sentence.rstrip().endswith((".", "!", "。")))


_DISPLAY = re.compile(r"(?:\$\$([^$]{1,300})\$\$|\\\[((?:[^\\]|\\(?!\])){1,300})\\\])[\s.]{0,9}$")
