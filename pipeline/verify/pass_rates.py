"""How hard each problem is for the teacher.

In: some columns of the traces, and which of them are right. Out: a `PassRate` for each problem that has an answer.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.records import PassRate

COLUMNS = ("trace_id", "problem_id", "status", "prompt_tokens", "completion_tokens")
"""Those of the traces that are looked at."""


def pass_rates(traces: Iterable[Mapping[str, Any]], right: Collection[str]) -> list[PassRate]:
    """The pass rates, by problem id. `right` are the ids of the traces that are."""
    samples, correct, tokens = Counter[str](), Counter[str](), Counter[str]()
    for trace in traces:
        if trace["status"] != "failed":
            problem = trace["problem_id"]
            samples[problem] += 1
            correct[problem] += trace["trace_id"] in right
            tokens[problem] += trace["prompt_tokens"] + trace["completion_tokens"]
    return [PassRate(problem, samples[problem], correct[problem], tokens[problem]) for problem in sorted(samples)]
