"""How hard each problem is for the teacher.

In: some columns of the traces, and which of them are right. Out: a `PassRate` for each problem that has an answer.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import PassRate, from_table

COLUMNS = ("trace_id", "problem_id", "status", "prompt_tokens", "completion_tokens")
"""Those of the traces that are looked at."""


def pass_rates(traces: pa.Table, right: pa.Array) -> list[PassRate]:
    """The pass rates, by problem id. `right` are the ids of the traces that are."""
    answered = traces.filter(pc.field("status") != "failed")
    each = pa.table(
        {
            "problem_id": answered["problem_id"],
            "correct": pc.is_in(answered["trace_id"], right).cast(pa.int64()),
            "tokens": pc.add(answered["prompt_tokens"], answered["completion_tokens"]),
        }
    )
    found = each.group_by("problem_id").aggregate([("correct", "count"), ("correct", "sum"), ("tokens", "sum")])
    found = found.rename_columns({"correct_count": "samples", "correct_sum": "correct", "tokens_sum": "tokens"})
    return from_table(PassRate, found.sort_by("problem_id"))
