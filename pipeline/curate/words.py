r"""The words of problems, as numbers: what is compared when problems are compared.

In: texts. Out: their words without what changes their look alone (case, white space, LaTeX styling, delimiters,
punctuation), or `WordTable`s: the words of many texts as 64-bit hashes, with hashed n-grams. All rules that compare
problems read these, so two texts that one of them calls equal are equal for the others.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from pipeline.records import SUPERSCRIPTS

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

_SIGNS = {sign: f" {sign} " for sign in "+-=<>/^|*()[]'"}
_GAPS = '${}?;:"~&_`'
_DELIMITER = re.compile(r"\\[^a-z]")
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("−–—﹣", "-"), **dict.fromkeys("’′‘", "'"), **dict.fromkeys("“”", " "),
        "×": "*", "·": "*", "⋅": "*", "÷": "/", "≤": " \\le ", "≥": " \\ge ", "≠": " \\ne ", "π": " \\pi ",
        "θ": " \\theta ", "∠": " \\angle ", "△": " \\triangle ", "∈": " \\in ", "⊥": " \\perp ", "√": " \\sqrt ",
        "∞": " \\infty ", "…": " \\dots ",
    }
)  # fmt: skip
_STYLING = frozenset(
    [
        "left",
        "right",
        "big",
        "bigg",
        "bigl",
        "bigr",
        "displaystyle",
        "textstyle",
        "text",
        "textbf",
        "textit",
        "textrm",
        "texttt",
        "mathrm",
        "mathbf",
        "mathit",
        "mathsf",
        "mathcal",
        "operatorname",
        "quad",
        "qquad",
        "hspace",
        "vspace",
        "limits",
        "nolimits",
        "begin",
        "end",
        "align",
        "aligned",
        "rm",
        "bf",
        "it",
        "emph",
        "underline",
        "mbox",
        "hbox",
        "boxed",
        "label",
        "tag",
        "nonumber",
        "noindent",
        "cdots",
        "ldots",
        "dots",
    ]
)
_SAME = {
    "leq": "<=", "le": "<=", "leqslant": "<=", "geq": ">=", "ge": ">=", "geqslant": ">=", "neq": "!=", "ne": "!=",
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "cdot": "*", "times": "*", "lt": "<", "gt": ">",
    "div": "/", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "pmod": "mod", "bmod": "mod", "degree": "°",
    "varnothing": "\\emptyset", "to": "\\rightarrow",
}  # fmt: skip
_WORD = re.compile(
    r"\\(?:[a-z]+|.)?|\d+(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+"
    r"|(?<=\d)!|^!|[-+=<>/^|*()\[\]'°]"
)
_PAIR = re.compile(r"([\[({]\s*-?\d{1,3}),(\d{3}\s*[\])}])")
"""Two numbers in brackets, not one with a comma for its thousands: [-500,500]."""
_SUBSCRIPT = re.compile(r"_\d(?=\d)")
"""Of bare digits the first one alone is lowered: \\log_264 is of 64."""
_SHORT_FRACTION = re.compile(r"\\([dtc]?frac|sqrt)(\d)(\d)?")
_ABOUT_THE_ANSWER = re.compile(
    r"(?:^|(?<=[.?!\])$}\n]))\s{0,6}(?:please )?(?:enter|express|give|write|round|report|state|list) (?:your|the|all|both|each)"
    r"(?: (?:the|such|final|possible|exact|correct)){0,3} "
    r"(?:(?:answers?|results?)\b(?![^.?!]{0,200}\bbase\b)|(?:values|solutions|integers|numbers),? separated by\b)"
    r"[^.?!]{0,300}(?:\.\d[^.?!]{0,200})?(?:[.?!]\$?(?=\s|$)|$)",
    re.IGNORECASE,
)
KNOWN_PIECES, KNOWN_CHARS = 500_000, 30
"""Pieces of text whose words are remembered: the vocabulary of millions of problems, in some 60 MB. Longer ones, as in a
language without blanks, do not recur."""


MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
"""Odd factors that make one hash of several."""
NUMBER_BIT = np.uint64(1)
"""Set in the hashes of numbers, and in no others."""
MASK = np.uint64(0xA0761D6478BD642F)
"""In place of any number."""


def question(problem: str) -> str:
    """The problem without what it says about the form of the answer ("Express your answer as a common fraction.").

    Such sentences stand in hundreds of unrelated problems of one set.
    """
    return _ABOUT_THE_ANSWER.sub(" ", problem).strip() or problem


def words(text: str) -> list[str]:
    """The words of a text: letters, numbers, signs and LaTeX commands, in order."""
    return [word for piece in _pieces(text) for word in _words_in(piece)]


def _pieces(text: str) -> list[str]:
    """A text cut at blanks and signs, into pieces that recur: most are one word."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", SUPERSCRIPTS.sub(r"^\g<0>", text).translate(_PLAIN))
    text = text.lower()
    if "\\" in text:
        text = text.replace("^\\circ", "°").replace("^{\\circ}", "°")
        text = _DELIMITER.sub(" ", text).replace("\\", " \\")
        text = _SUBSCRIPT.sub(r"\g<0> ", text)
    if "," in text:
        text = _PAIR.sub(r"\1, \2", text)
    for gap in _GAPS:
        if gap in text:
            text = text.replace(gap, " ")
    for sign, apart in _SIGNS.items():
        if sign in text:
            text = text.replace(sign, apart)
    return text.split()


def _words_in(piece: str) -> list[str]:
    found = []
    for word in _WORD.findall(_SHORT_FRACTION.sub(r"\\\1 \2 \3", piece)):
        if word[0] == "\\":
            if word[1:] not in _STYLING and len(word) > 1:
                found.append(_SAME.get(word[1:], word))
        else:
            found.append(word.replace(",", ""))
    return found


def hash64(data: str | bytes) -> int:
    """64 bits of a text or of bytes, the same on every machine."""
    encoded = data.encode("utf-8", "replace") if isinstance(data, str) else data
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def _hash(word: str) -> int:
    """64 bits; odd for numbers alone, so that they can be masked."""
    is_number = word[0].isdigit() or (word[0] == "." and len(word) > 1)
    return hash64(word) & ~int(NUMBER_BIT) | int(NUMBER_BIT) * is_number


MINUS_HASH = np.uint64(_hash("-"))
SIGN_HASHES = frozenset(map(_hash, "+-*/^=<>!"))


class _Hashes(dict[str, tuple[int, ...]]):
    """The hashes of the words in a piece."""

    def __missing__(self, piece: str) -> tuple[int, ...]:
        found = tuple(map(_hash, _words_in(piece)))
        if len(self) < KNOWN_PIECES and len(piece) <= KNOWN_CHARS:
            self[piece] = found
        return found


_HASHES = _Hashes()


@dataclass(frozen=True)
class WordTable:
    """The words of many texts: `hashes`, those of text i from `offsets[i]` to `offsets[i + 1]`."""

    hashes: Hashes
    offsets: Offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> "WordTable":
        """The words of texts."""
        rows = [list(chain.from_iterable(map(_HASHES.__getitem__, _pieces(text)))) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter(chain.from_iterable(rows), np.uint64, int(lengths.sum()))
        return cls(flat, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> Hashes:
        """The words of one text."""
        return self.hashes[self.offsets[index] : self.offsets[index + 1]]

    def ngrams(self, size: int) -> "WordTable":
        """All runs of `size` words (at most 4), hashed, in place of the words; none for shorter texts."""
        counts = np.maximum(np.diff(self.offsets) - size + 1, 0)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        starts = np.arange(bounds[-1]) + np.repeat(self.offsets[:-1] - bounds[:-1], counts)
        mixed = self.hashes[starts] * MIX[0]
        for ahead in range(1, size):
            mixed += self.hashes[starts + ahead] * MIX[ahead]
        mixed ^= mixed >> np.uint64(29)
        return WordTable(mixed * MIX[0], bounds)
