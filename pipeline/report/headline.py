"""The result of a run in a few sentences, every number with its interval.

In: `Results`. Out: `Headline`. What is not significant is called so.
"""

from dataclasses import dataclass

from pipeline.figures import count, percent
from pipeline.report.formats import inside, interval, label, p_value, points
from pipeline.report.results import Comparison, Point, Results


@dataclass(frozen=True)
class Headline:
    """`sentence` says how good the last model is, `details` what to think of it."""

    sentence: str
    details: list[str]


def headline(results: Results, *, held_out: bool) -> Headline:
    """The sentences, from the first benchmark and convention at the largest budget."""
    found = results.headline()
    details = [_difference(c) for c in _last_against_the_others(results)]
    details += [_other_convention(results, name) for name in results.conventions[1:]]
    details.append(_vote(results))
    if failed := sum(r.failed for r in results.requests):
        asked = sum(r.asked for r in results.requests)
        details.append(f"{count(failed)} of {count(asked)} requests failed; they count in no accuracy.")
    return Headline(_sentence(found, results.benchmarks[0], held_out), [d for d in details if d])


def _sentence(found: list[Point], benchmark: str, held_out: bool) -> str:
    first, last = found[0], found[-1]
    problems = f"{count(last.n)} {'held-out ' if held_out else ''}problems of {benchmark}"
    text = f"{label(last.model)} answers {percent(last.accuracy)} {interval(last.low, last.high)} of {problems}"
    forced = last.curve == "budget_forced"
    text += f" {'cut at' if forced else 'within'} {count(last.budget)} tokens, {count(last.tokens)} on average"
    text += " with forced answers" if forced else ""
    if len(found) > 1:
        text += f"; {inside(first.model)} answers {percent(first.accuracy)} {interval(first.low, first.high)}"
    return text + "."


def _last_against_the_others(results: Results, convention: str | None = None) -> list[Comparison]:
    found = results.headline(convention)
    compared = results.headline_comparisons(convention)
    return [c for c in compared if found and c.after == found[-1].model]


def _difference(c: Comparison) -> str:
    text = f"{label(c.after)} against {inside(c.before)}, paired over {count(c.n)} problems: "
    text += f"{points(c.difference)} points {interval(c.low, c.high)}, {p_value(c.p_value)}"
    return text + (" (permutation test)." if c.significant else ": the difference is not significant.")


def _other_convention(results: Results, convention: str) -> str:
    """Whether the gain over the first model holds when answers are read in another way."""
    compared = _last_against_the_others(results, convention)
    if not compared:
        return ""
    c = compared[0]
    reading = (
        "With the last number in the text taken as the answer" if convention == "last_number" else f"By {convention}"
    )
    text = f"{reading}: {percent(c.accuracy_after)} against {percent(c.accuracy_before)}, "
    text += f"{points(c.difference)} points {interval(c.low, c.high)}"
    if not c.significant:
        return text + ": not a significant difference."
    return text + (
        ", so the gain is more than the boxed format." if convention == "last_number" and c.difference > 0 else "."
    )


def _vote(results: Results) -> str:
    """What the last model's largest vote comes to."""
    found = [v for v in results.voted(results.benchmarks[0], results.conventions[0]) if v.model == results.models[-1]]
    if not found:
        return ""
    v = found[-1]
    text = f"By majority of {v.k} answers of natural length {inside(v.model)} is right on {percent(v.accuracy)} "
    text += f"{interval(v.low, v.high)} of the problems, for {count(v.tokens)} tokens"
    return text + f"; one of the {v.k} is right on {percent(v.passed)} {interval(v.passed_low, v.passed_high)}."
