"""Stage 4: every trace graded again (`selection`), the doubtful ones also by a model (`judge`), and some chosen.

In: traces and gold answers. Out: verdicts, training examples for the chosen traces, and for all others the reason
why not.
"""
