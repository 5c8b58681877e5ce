"""The grader: is a response's final answer the gold one? It selects training data and scores the student.

In: gold answers and responses. Out: `Grade`s. Read in this order: `extraction` finds the final answer in a response,
`spelling` gives its text one spelling, `quantities` reads plain numbers and has the precision policy, `structure` reads
all else, `equality` compares it (`formulas` and their `values`, `sets` of `intervals`), `child` runs that in processes
that are really killed, `grader` puts it together. `voting` groups answers that are the same, `kinds` says of
which kind one is.
"""

from pipeline.grading.extraction import (
    after_last_box,
    final_answer,
    gold_answer,
    gsm8k_answer,
    last_boxed,
    last_number,
)
from pipeline.grading.grader import Grade, Grader, grade_last_number, same_at_sight
from pipeline.grading.kinds import answer_type
from pipeline.grading.spelling import spelling_key

__all__ = [
    "Grade",
    "Grader",
    "after_last_box",
    "answer_type",
    "final_answer",
    "gold_answer",
    "grade_last_number",
    "gsm8k_answer",
    "last_boxed",
    "last_number",
    "same_at_sight",
    "spelling_key",
]
