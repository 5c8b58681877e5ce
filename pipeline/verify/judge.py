"""A model's opinion on traces that the symbolic grader could not read, and on a sample of those it called wrong.

In: a problem, its gold answer, a trace. Out: a second verdict, kept beside the symbolic one. The model sees the final
answer only, as a quoted string, and must answer in one word: what a response says to its judge is not heard.
"""

import json
import re
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import prompts
from pipeline.chat import ChatClient, chat_request
from pipeline.config import Judge
from pipeline.grading import final_answer
from pipeline.prompts import split_thought
from pipeline.records import Problem, Trace, Verdict, VerdictName, digest
from pipeline.responses import Segment

MAX_ANSWER_CHARS = 300
MAX_ANSWER_WORDS = 12
"""A longer answer is no answer but a text, and may be written for the judge."""


def is_judged(trace: Trace, symbolic: Verdict, config: Judge) -> bool:
    """Whether a trace is shown to the judge: it ended well and is unparsable, or falls into the sample."""
    if trace.status != "ok" or symbolic.verdict not in ("unparsable", "incorrect"):
        return False
    share = int(digest(trace.trace_id, "judge")[:8], 16) / 0xFFFFFFFF
    return symbolic.verdict == "unparsable" or share < config.incorrect_share


async def judge(problem: Problem, trace: Trace, client: ChatClient, segment: Segment) -> Verdict:
    """The judge's verdict; `unparsable` where it gave none, with the reason as `matched_by`."""
    answer = shown_answer(trace.response)
    if not answer:
        return _verdict(trace, "unparsable", None, "no_short_answer", 0.0)
    messages = prompts.judge(problem.problem, problem.answer, json.dumps(answer, ensure_ascii=False))
    outcome = await client.buy(chat_request(client.endpoint, messages, 0), segment)
    if outcome.reply is None:
        return _verdict(trace, "unparsable", answer, "request_failed", 0.0)
    verdict = _OPINIONS.get(split_thought(outcome.reply.text)[1].strip().strip("*.\"'`").upper())
    if verdict is None:
        return _verdict(trace, "unparsable", answer, "unclear_opinion", outcome.reply.latency_s)
    return _verdict(trace, verdict, answer, "judge", outcome.reply.latency_s)


_OPINIONS: dict[str, VerdictName] = {prompts.SAME: "correct", prompts.DIFFERENT: "incorrect"}
"""Nothing but one of the two words is an opinion."""


def shown_answer(response: str) -> str:
    """The final answer as the judge sees it, in printable characters; "" where there is none, or no short one."""
    answer = final_answer(response) or split_thought(response)[1].strip()
    shown = " ".join("".join(character if character.isprintable() else " " for character in answer).split())
    words = re.findall(r"(?<![\\\w])[^\W\d_]{2,}", shown)
    return shown if len(shown) <= MAX_ANSWER_CHARS and len(words) <= MAX_ANSWER_WORDS else ""


def agreement(verdicts: pa.Table) -> dict[str, int]:
    """How often symbolic grader and judge agree, by `Verdict`'s columns: {"unparsable, judged correct": 3, ...}."""
    symbolic, judged = (verdicts.filter(pc.field("grader") == grader) for grader in ("symbolic", "judge"))
    at = pc.index_in(judged["trace_id"], symbolic["trace_id"].combine_chunks())
    pairs = zip(symbolic["verdict"].take(at).to_pylist(), judged["verdict"].to_pylist(), strict=True)
    return dict(sorted(Counter(f"{grade}, judged {opinion}" for grade, opinion in pairs).items()))


def _verdict(trace: Trace, verdict: VerdictName, answer: str | None, matched_by: str, seconds: float) -> Verdict:
    return Verdict(trace.trace_id, "judge", verdict, answer, matched_by, seconds)
