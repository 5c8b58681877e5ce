"""What each stage of training is worth: the run's own models against each other.

In: `Results`. Out: the comparisons of `base`, `stage1`, `stage2_alone` and `stage2`, each pair with the question that it
answers and with a sentence of what was found.
"""

from pipeline.figures import count
from pipeline.report.formats import inside, label, p_value
from pipeline.report.results import STUDENTS, Comparison, Results

QUESTIONS = {
    ("base", "stage1"): "What does stage 1 add?",
    ("base", "stage2_alone"): "What does stage 2 add without stage 1?",
    ("base", "stage2"): "What do both stages add?",
    ("stage1", "stage2_alone"): "Which stage is worth more alone?",
    ("stage1", "stage2"): "What does stage 2 add after stage 1?",
    ("stage2_alone", "stage2"): "What does stage 1 add before stage 2?",
}


def ablation(results: Results, benchmark: str, convention: str) -> list[Comparison]:
    """Every pair of the run's own models at the largest budget of the headline's curve."""
    compared = results.compared_at_largest(benchmark, convention)
    return [c for c in compared if c.before in STUDENTS and c.after in STUDENTS]


def question(comparison: Comparison) -> str:
    """What the comparison of two of the run's own models is there to answer."""
    return QUESTIONS[comparison.before, comparison.after]


def finding(comparison: Comparison) -> str:
    """What was found, as a sentence."""
    c = comparison
    if not c.significant:
        difference = f"The difference between {inside(c.after)} and {inside(c.before)}"
        return f"{difference} is not significant (n = {count(c.n)}, {p_value(c.p_value)})."
    return f"{label(c.after)} is {'better' if c.difference > 0 else 'worse'} than {inside(c.before)}."
