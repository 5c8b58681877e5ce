"""What each reason for dropping a row means, in one line for readers of a card."""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "malformed_row": "the row cannot be read, lacks a problem, or is far too long",
    "malformed_latex": "its LaTeX is broken",
    "deselected": "not among the rows that the config asks for",
    "too_short": "shorter than the settings want",
    "too_long": "longer than the settings allow",
    "wrong_language": "in a language that is not asked for",
    "needs_image": "points to a picture",
    "multi_part": "asks for several things at once",
    "multiple_choice": "asks for a choice among given options",
    "proof": "asks for a proof, which has no final answer to check",
    "no_answer": "no labelled answer",
    "unparsable_answer": "the labelled answer cannot be read by the grader",
    "non_numeric": "the labelled answer is of a type that is not asked for",
    "duplicate": "the same text as another problem",
    "near_duplicate": "nearly the same text as another problem",
    "contaminated": "a problem of a benchmark, or one that contains it",
    "template_match": "a problem of a benchmark with other numbers",
    "request_failed": "the model gave no answer",
    "refused": "the model or its provider refused to answer",
    "truncated": "the answer was cut off at the longest length allowed",
    "wrong_answer": "the final answer is not the labelled one",
    "no_final_answer": "no final answer can be found",
    "timeout": "the grader could not compare the answers in time",
    "mentions_original": "speaks of the solution that it rewrites",
    "too_few_steps": "has fewer steps than the settings want",
    "not_selected": "right, but its problem has enough traces already",
    "no_reflection": "right, but its thought does not doubt, check or turn back as often as the settings want",
    "too_similar": "right, but too much like a trace of the same problem that was chosen",
}
"""One for each `records.RejectReason`."""
