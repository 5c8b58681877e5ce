"""Stages run in this process to count what they will ask: on a set that is read in a moment, with recorded answers.

In: a config, and what a stage reads. Out: what it makes, and its requests. The rules are the stages' own; only the transport is
another: answers come from the recordings that an endpoint's `replay` names, as the replay teacher gives them. No Ray, no network.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar, cast

import pyarrow as pa

from pipeline import prompts
from pipeline.chat import ChatClient, Outcome, Request, chat_request
from pipeline.chat.wire import Reader
from pipeline.config import Config, Endpoint
from pipeline.curate.duplicates import FINGERPRINT, fates
from pipeline.curate.examination import Examiner
from pipeline.distill.sampling import sample
from pipeline.grading import Grader
from pipeline.plan.asking import Asked
from pipeline.plan.counts import Answers, Texts
from pipeline.plan.estimate import exactly
from pipeline.plan.run import Examples
from pipeline.records import Example, Message, PackedRow, Problem, Trace, TrainStage, Verdict, from_row, to_table
from pipeline.reformat.rewriting import rewrite
from pipeline.replay import Behaviour, Recordings, ReplayTeacher
from pipeline.responses import Reply, Segment
from pipeline.sources import RawRow, origin_of, read
from pipeline.storage import Place
from pipeline.verify.judge import is_judged, judge
from pipeline.verify.quality import quality
from pipeline.verify.selection import choose, example_of, right_traces, verdict_of

T = TypeVar("T")
R = TypeVar("R")
BATCH_ROWS = 2048


@dataclass
class Recorded:
    """Stands for a `ChatClient`: answers from recordings, and counts."""

    endpoint: Endpoint
    recordings: Recordings
    replies: list[Reply] = field(default_factory=list)
    requests: int = 0

    def __post_init__(self) -> None:
        self._teacher = ReplayTeacher(self.recordings, Behaviour())
        self._reader = Reader(self.endpoint, None)

    async def buy(self, request: Request, segment: Segment | None) -> Outcome:
        """See `ChatClient`."""
        del segment
        self.requests += 1
        status, body = self._teacher.line(request.request_id, request.body)
        answer = self._reader.read_body(request, lambda: body, 0.0)
        if status != 200 or not isinstance(answer, Reply):
            return Outcome(None, f"HTTP {status}")
        self.replies.append(answer)
        return Outcome(answer)

    @property
    def asked(self) -> Asked:
        """What was asked so far."""
        prompt = sum(reply.prompt_tokens for reply in self.replies)
        completion = sum(reply.completion_tokens for reply in self.replies)
        return Asked(exactly(self.requests), exactly(prompt), exactly(completion))


NO_SEGMENT = cast(Segment, None)
"""Nothing is stored."""


def curated(config: Config, files: Sequence[tuple[int, Place]], benchmarks: Sequence[Problem]) -> list[Problem]:
    """The problems that `curate` keeps, in the order of its table. `files` come with the number of their source."""
    settings = config.curate
    examiner = Examiner(settings, benchmarks)
    rows: list[tuple[RawRow, int, str]] = []
    for index, file in files:
        source = settings.sources[index]
        rows += [(row, index, origin_of(source, file)) for row in read(file, source)]
    examined = pa.concat_tables(
        examiner.examine(
            [row for row, _, _ in part],
            [settings.sources[index] for _, index, _ in part],
            [origin for *_, origin in part],
        )
        for part in (rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS))
    )
    fit = examined.filter(examined["problem"].is_valid())
    same_givens = settings.duplicate_givens == "same"
    found = fates(fit.select(FINGERPRINT.names), settings.duplicate_threshold, same_givens=same_givens)
    kept = fit.filter(found["reason"].combine_chunks().is_null())
    return sorted((from_row(Problem, row) for row in kept["problem"].to_pylist()), key=lambda each: each.problem_id)


def reformatted(config: Config, problems: Sequence[Problem], recordings: Recordings) -> tuple[Asked, list[Example]]:
    """What `reformat` asks, and the examples it makes."""
    client = Recorded(config.rewriter, recordings)
    with Grader() as grader:
        made = _all(
            problems,
            lambda problem: rewrite(problem, config.reformat, cast(ChatClient, client), NO_SEGMENT, grader),
        )
    return client.asked, [each.example for each in made if each.example is not None]


def distilled(config: Config, problems: Sequence[Problem], recordings: Recordings) -> tuple[Asked, list[Trace]]:
    """What `distill` asks, and its traces."""
    client = Recorded(config.teacher, recordings)
    with Grader() as grader:
        made = _all(
            problems,
            lambda problem: sample(problem, config.distill, cast(ChatClient, client), NO_SEGMENT, grader),
        )
    return client.asked, [trace for traces in made for trace in traces]


def verified(
    config: Config, problems: Sequence[Problem], traces: Sequence[Trace], recordings: Recordings | None
) -> tuple[Asked | None, list[Example]]:
    """What `verify` asks its judge (None where that has no recordings), and the examples it makes: without opinions, where there are
    none.
    """
    settings = config.verify
    gold = {problem.problem_id: problem for problem in problems}
    with Grader() as grader:
        verdicts = _all(traces, lambda trace: verdict_of(trace, gold[trace.problem_id].answer, grader))
    asked = None
    if settings.judge is not None and recordings is not None:
        client = Recorded(settings.judge.endpoint, recordings)
        graded = zip(traces, verdicts, strict=True)
        shown = [trace for trace, verdict in graded if is_judged(trace, verdict, settings.judge)]
        verdicts += _all(
            shown, lambda trace: judge(gold[trace.problem_id], trace, cast(ChatClient, client), NO_SEGMENT)
        )
        asked = client.asked
    ids = set(right_traces(to_table(Verdict, verdicts)).to_pylist())
    right = sorted((each for each in traces if each.trace_id in ids), key=lambda each: each.problem_id)
    fates = choose(
        (quality(each.trace_id, each.problem_id, each.reasoning or each.response) for each in right), settings
    )
    chosen = {fate.trace_id for fate in fates if fate.reason is None}
    examples = [example_of(each, gold[each.problem_id], settings) for each in traces if each.trace_id in chosen]
    return asked, examples


def evaluated(config: Config, endpoint: Endpoint, problems: Sequence[Problem], recordings: Recordings) -> Asked:
    """What `evaluate` asks an endpoint with recordings, whose answers are cut at no budget: they come without token ids."""
    client = Recorded(endpoint, recordings)
    requests = [
        chat_request(endpoint, prompts.student(problem.problem), index)
        for problem in problems
        for index in range(config.evaluate.samples)
    ]
    _all(requests, lambda request: client.buy(request, None))
    return client.asked


def packed(
    config: Config, tokenizer: Any, stage: TrainStage, examples: Sequence[Example], count: int
) -> tuple[list[PackedRow], Examples]:
    """The sequences that training packs of a stage's examples, and what it learns from; where these are the first of `count`, of all."""
    from pipeline.train.prepare import pack_shard

    optimization = config.train.optimization(stage)
    most = optimization.max_examples
    chosen = {each.example_id for each in sorted(examples, key=lambda each: each.example_id)[:most]}
    rows, _ = pack_shard(examples, tokenizer, config.train, optimization, chosen)
    lengths = [length for row in rows for length in row.lengths]
    whole = count == len(examples)
    fitting = len(lengths) if whole else min(count, most or count) * len(lengths) / len(chosen)
    texts = Texts(exactly(fitting), exactly(sum(lengths) / max(1, len(lengths))))
    answers = Answers([length for row in rows for length in _answers_in(row)])
    return rows, Examples(texts, answers, len(rows) if whole else None)


def _answers_in(row: PackedRow) -> list[int]:
    """The target tokens of each example of a packed row."""
    ends = list(accumulate(row.lengths))
    return [
        sum(label >= 0 for label in row.labels[end - length : end])
        for end, length in zip(ends, row.lengths, strict=True)
    ]


def prompt_lengths(tokenizer: Any, problems: Sequence[str]) -> list[int]:
    """The tokens that a student is asked each problem with."""
    from pipeline.train.conversations import tokenize

    answer = Message("assistant", "x")
    asked = (Example("", "stage1", "", "", [*prompts.student(each), answer]) for each in problems)
    return [int((~tokenize(each, tokenizer).targets).sum()) for each in asked]


def _all(rows: Sequence[T], ask: Callable[[T], Awaitable[R]]) -> list[R]:
    async def gathered() -> list[R]:
        return list(await asyncio.gather(*map(ask, rows)))

    return asyncio.run(gathered())
