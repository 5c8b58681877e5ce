"""The files of the report.

In: `Summary`. Out: the bytes of `index.html`, `report.md` and `report.json`; and `Results` read back from
the JSON, for the table of a run that is complete. Where they are written is left to the job.
"""

import dataclasses
import json

from pipeline.report.page import html
from pipeline.report.results import Comparison, Point, Results
from pipeline.report.summary import Summary
from pipeline.report.tallies import Requests
from pipeline.report.text import markdown
from pipeline.report.votes import VotePoint


def files(summary: Summary) -> dict[str, bytes]:
    """The report, by file name."""
    values = dataclasses.asdict(summary)
    del values["browse"]  # the answers are in the evaluation's own tables
    numbers = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    texts = {"report.json": numbers + "\n", "report.md": markdown(summary), "index.html": html(summary)}
    # A lone surrogate, as a model may produce, is no UTF-8: it is replaced, and shown as such.
    return {name: text.encode("utf-8", "replace") for name, text in texts.items()}


def results_from_json(data: bytes) -> Results:
    """The results in a `report.json`."""
    values = json.loads(data)["results"]
    return Results(
        **{
            **values,
            "points": [Point(**point) for point in values["points"]],
            "comparisons": [Comparison(**comparison) for comparison in values["comparisons"]],
            "requests": [Requests(**requests) for requests in values["requests"]],
            "votes": [VotePoint(**vote) for vote in values["votes"]],
        }
    )
