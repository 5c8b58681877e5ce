"""The rules that look at one row: keep it as a `Problem`, or drop it with a reason (paper, section 2.3).

In: `RawRow`s. Out: `Problem` or `Rejected`. To add a rule, write a function from a row and the settings of `curate` to a
detail (or None) and put it into `RULES`; its reason must be one of `records.RejectReason`. What needs the answer is in
`Filters.examine`.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from pipeline.config import Curate, Source
from pipeline.curate.answers import A_PROOF, answer_of
from pipeline.curate.language import other_language
from pipeline.curate.options import open_question
from pipeline.grading import Grader, answer_type
from pipeline.grading.spelling import MAX_CHARS
from pipeline.records import AnswerType, Problem, Rejected, RejectReason, problem_id, to_json
from pipeline.sources import RawRow

_IMAGE = re.compile(
    r"\[asy\]|\\begin\{(?:asy|tikzpicture|picture)\}|<img\b|<image|!\[[^\]]{0,300}\]\(|\\includegraphics|\[img\]"
    r"|https?://\S{1,200}\.(?:png|jpe?g|gif|svg)\b|cdn\.mathpix\.com"
    r"|\b(?:in|from|see|as shown in|shown in|using|given) the (?:(?!previous|same)\w+ )?(?:figure|diagram|picture|image)s?\b(?! of)"
    r"|\b(?:the|this|each) (?:figure|diagram|picture) (?:\w+ )?(?:shows?|represents|illustrates|depicts)\b"
    r"|\b(?:figure|diagram|picture|image|drawing|graph|map)s? (?:is |are |that is )?"
    r"(?:below|above|shown|given below|at (?:the )?(?:right|left))\b"
    r"|\b(?:below|above) is (?:a|the) (?:figure|diagram|picture|graph|drawing|map)\b"
    r"|\b(?:in|see|from) (?:figure|fig\.|diagram) ?\d(?!\d)|\(see (?:the )?(?:figure|diagram|picture)|如图|见图|下图|右图|图中",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    r"\bas (?:shown|pictured|depicted|illustrated)\b(?! (?:that|by|how))|\bpictured (?:below|above|here)\b"
    r"|\b(?:is|are) (?:shown|pictured|depicted|illustrated)(?: (?:below|above|here|at the|on the|to the|in the (?!table))|\s*[.,;])"
    r"|\bshown (?:below|above|here|at (?:the )?(?:right|left)|to the (?:right|left))\b|\b(?:grid|chart|pattern) (?:below|above|shown)\b",
    re.IGNORECASE,
)
_IN_THE_TEXT = re.compile(
    r"\\begin\{(?:tabular|array|[pbv]?matrix)|\|\s*:?-{3}|\$\\bullet|\bRow [A1]\b|\| ?\w[^|\n]*\|"
)
"""What is shown may be a table, and the text has it."""
_IMAGE_HINT = re.compile(
    r"asy|fig|diagram|pictur|image|draw|shown|depict|illustr|graph|chart|table|map|grid|!\[|\[img|https?:|mathpix|图",
    re.IGNORECASE,
)
_PROOF = re.compile(
    r"(?<!can )(?<!could )(?<!to be )(?<!not )\bprove\b(?! (?:to be|useful|successful|an? |(?:that )?no such))|\bdisprove\b"
    r"|(?:(?:^|[.:;,?!\])$}]\s*|\n[ \t]*|\b(?:and|then|also|hence|thus)\s+)show\s+(?:that|the|for|by|there|if|how|\$|\\)"
    r"|\b(?:to|or)\s+show\s+that)(?! no such)"
    r"|\b(?:give|write|provide) (?:a |your )?(?:rigorous )?proof\b|\bdemonstrate that\b|(?<!we )\bdeduce that\b"
    r"|(?:^|[.;?!$]\s*)(?:verify|establish|explain) (?:that|why)\b"
    r"|证明|求证|试证",
    re.IGNORECASE,
)
_PROOF_OF_AN_ANSWER = re.compile(
    r"\bwith (?:a )?proof\b|\bjustify\b|\bexplain (?:your|why|how)\b|\b(?:determine|decide) (?:if|whether)\b"
    r"|(?:^|[.;?!$]\s*)(?:is it|are there|does there|do there|can (?:we|one|you|he|she|it|they)) ",
    re.IGNORECASE,
)
"""With a labelled answer these are problems like others: "Find, with proof, the number of ..."."""
_PROOF_HINT = re.compile(r"pro[vo]|show|justif|demonstrate|deduce|verify|establish|explain|证", re.IGNORECASE)
_PART = re.compile(
    r"(?:(?<=\s)|(?<=^)|(?<=[.;:?!$\]]))(?:\(([a-e]|i{1,3}|iv|v|[1-5])\)|([a-e]|[1-5])\)|[Pp]art \(?([a-eA-E1-5])\)?[:.]?)"
    r"[\s:.]*(?:[^.?!;]{0,80},\s*)?"
    r"(?:find|determine|compute|calculate|what|how|show|prove|evaluate|solve|is|are|does|do|can|deduce|hence|give the|state|"
    r"simplify|sketch|draw|explain|express|describe|which|for (?:which|what)|求|证明|计算|写出)\b",
    re.IGNORECASE,
)
_ANSWER_PART = re.compile(r"^\W{0,4}\((?:a|i|1)\).*?[\s,;$]\((?:b|ii|2)\)", re.DOTALL)
_ESCAPED = re.compile(r"\\[\\{}$]")
_LATEX, _MONEY = re.compile(r"[\\^_]"), re.compile(r"\$\s?[\d.]")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-zA-Z*]+)\}")


def malformed_latex(row: RawRow, _: Curate) -> str | None:
    """Braces, environments or delimiters that do not match: a text that was cut or damaged."""
    text = _ESCAPED.sub("", row.problem or "")
    for opening, closing in (("{", "}"), ("\\(", "\\)"), ("\\[", "\\]")):
        opened, closed = text.count(opening), text.count(closing)
        if opened != closed:
            return f"{opened} of {opening} but {closed} of {closing}"
    if text.count("$") % 2 and _LATEX.search(text) and not _MONEY.search(text):
        return f"{text.count('$')} dollar signs"
    environments = _ENVIRONMENT.findall(text)
    begun = sorted(name for kind, name in environments if kind == "begin")
    if begun != sorted(name for kind, name in environments if kind == "end"):
        return "an environment is not closed"
    return None


def deselected(row: RawRow, _: Curate) -> str | None:
    """The row is not among those that the source's `where` asks for."""
    return row.deselected


def too_short(row: RawRow, settings: Curate) -> str | None:
    """The problem is a fragment."""
    length = len(row.problem or "")
    return f"{length} characters" if length < settings.min_chars else None


def too_long(row: RawRow, settings: Curate) -> str | None:
    """The problem is too long to be one."""
    length = len(row.problem or "")
    return f"{length:,} characters" if length > settings.max_chars else None


def wrong_language(row: RawRow, settings: Curate) -> str | None:
    """The problem is in a language that is not asked for."""
    language = other_language(row.problem or "", settings.languages)
    return language and f"is in {language!r}"


def needs_image(row: RawRow, _: Curate) -> str | None:
    """The problem points to a picture."""
    text = row.problem or ""
    return _matched(_IMAGE_HINT, _IMAGE, text) or (
        None if _IN_THE_TEXT.search(text) else _matched(_IMAGE_HINT, _SHOWN, text)
    )


def proof(row: RawRow, _: Curate) -> str | None:
    """The problem asks for a proof, which has no final answer to check."""
    if (row.answer or "").casefold().strip(" .") in A_PROOF:
        return f"the answer is {row.answer!r}"
    asked = _matched(_PROOF_HINT, _PROOF, row.problem)
    return asked if asked or answer_of(row) else _matched(None, _PROOF_OF_AN_ANSWER, row.problem)


def multi_part(row: RawRow, _: Curate) -> str | None:
    """The problem asks several questions, of which one answer would be graded."""
    parts = [next(filter(None, found.groups())) for found in _PART.finditer(row.problem or "")]
    if len(set(parts)) > 1:
        return f"asks {', '.join(dict.fromkeys(parts))}"
    return "the answer has several parts" if _ANSWER_PART.search((row.answer or "")[:MAX_CHARS]) else None


RULES: tuple[tuple[RejectReason, Callable[[RawRow, Curate], str | None]], ...] = (
    ("deselected", deselected),
    ("too_long", too_long),
    ("too_short", too_short),
    ("malformed_latex", malformed_latex),
    ("wrong_language", wrong_language),
    ("needs_image", needs_image),
    ("proof", proof),
    ("multi_part", multi_part),
)
"""In the order in which they are asked: the first that applies gives the reason."""

_PLAIN_FORMULA = re.compile(
    r"(?:[-+()/.!^{}\d\s]|\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right)(?![a-z]))+(?<![-+^/(.])"
)
EASILY_READ: frozenset[AnswerType] = frozenset(["integer", "decimal", "fraction", "percentage", "choice", "text"])
"""Types that were read to be recognised; of the others a formula may still be none."""


class Filters:
    """The rules, with the settings of `curate` and the grader that reads gold answers."""

    def __init__(self, settings: Curate) -> None:
        self._settings = settings
        self._grader = Grader()

    def examine(self, row: RawRow, source: Source, origin: str) -> Problem | Rejected:
        """The row as a problem, or why it is dropped."""
        if row.error is not None or not row.problem:
            return _rejected(row, "malformed_row", row.error or "no problem text")
        for reason, rule in RULES:
            detail = rule(row, self._settings)
            if detail is not None:
                return _rejected(row, reason, detail)
        answer = answer_of(row)
        if answer is None:
            return _rejected(row, "no_answer", "no answer column and no box in the solution")
        opened: tuple[RawRow, str] | str = row, answer
        if "choice" not in self._settings.answer_types:
            opened = open_question(row, answer)
        if isinstance(opened, str):
            return _rejected(row, "multiple_choice", opened)
        asked, answer = opened
        if asked is not row and any(rule(asked, self._settings) is not None for _, rule in RULES):
            return _rejected(row, "multiple_choice", "without its options it is no problem")
        kind = answer_type(answer)
        if kind not in self._settings.answer_types:
            return _rejected(row, "non_numeric", f"the answer is of type {kind}: {answer[:80]}")
        if not self._is_readable(answer, kind):
            return _rejected(row, "unparsable_answer", f"the grader cannot read {answer[:80]}")
        text = asked.problem or ""
        return Problem(
            problem_id=problem_id(text),
            problem=text,
            answer=answer,
            answer_type=kind,
            solution=row.solution,
            source=source.name,
            license=source.license,
            level=row.level,
            subset=row.subset,
            origin=origin,
        )

    def _is_readable(self, answer: str, kind: AnswerType) -> bool:
        """Whether the grader can compare with an answer: it calls a gold answer that it cannot read unparsable."""
        if kind in EASILY_READ or (_PLAIN_FORMULA.fullmatch(answer) and answer.count("{") == answer.count("}")):
            return True
        return self._grader.grade(answer, r"\boxed{0}").verdict in ("correct", "incorrect")


def _matched(hint: re.Pattern[str] | None, pattern: re.Pattern[str], text: str | None) -> str | None:
    """What a pattern finds in a text that has one of the words it begins with: looking for these is quick."""
    found = pattern.search(text or "") if hint is None or hint.search(text or "") else None
    return f"says {found.group().strip()!r}" if found else None


def _rejected(row: RawRow, reason: RejectReason, detail: str) -> Rejected:
    if reason == "deselected":  # millions of them would be a copy of the source
        row = replace(row, solution=None)
    return Rejected(row.place, "curate", reason, detail, to_json(row))
