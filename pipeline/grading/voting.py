"""Answers grouped by what they say: two ways of writing one number are one vote.

In: the final answers of several samples. Out: the class of each. Equality is exact here: no answer knows which of them
is gold, so no rounding is forgiven, and 0.333 is not 1/3 (deepconf#15 counts 0.5 and 1/2 apart).
"""

from collections.abc import Callable, Sequence

from pipeline.grading.spelling import spelling_key


def classes(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[int | None]:
    """The class of each answer, numbered by first appearance; None for a sample without an answer.

    Answers of the same text are the same without a question. Of each text one answer is compared with one of each
    class, so `same` is asked at most (distinct texts x classes) times.
    """
    found: list[str] = []
    by_text: dict[str, int] = {}
    voted: list[int | None] = []
    for answer in answers:
        if answer is None:
            voted.append(None)
            continue
        text = spelling_key(answer)
        if text not in by_text:
            known = (number for number, member in enumerate(found) if same(member, answer))
            by_text[text] = next(known, len(found))
            if by_text[text] == len(found):
                found.append(answer)
        voted.append(by_text[text])
    return voted
