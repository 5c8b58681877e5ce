"""Every row that crosses a stage: frozen dataclasses, and the Arrow schema of each.

In: nothing. Out: the record types, `arrow_schema`, `to_table`, `from_table` and the ids.
Reading and writing files is left to `storage`.
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import pyarrow as pa

AnswerType = Literal[
    # one real number; `real` is a closed form such as 3\sqrt{2} or \pi/4
    "integer", "decimal", "fraction", "percentage", "real",
    # everything else that can be graded; `expression` holds variables, `set` is several answers too
    "complex", "expression", "equation", "interval", "set", "tuple", "matrix", "choice", "text",
]  # fmt: skip
Method = Literal["rewrite", "distill", "tree_search", "debate", "human"]
TraceStatus = Literal["ok", "truncated", "refused", "failed"]
VerdictName = Literal["correct", "incorrect", "unparsable", "timeout"]
GraderName = Literal["symbolic", "judge"]
TrainStage = Literal["stage1", "stage2", "stage2_alone"]
"""A stage of training, and the model it makes. `stage2_alone` is stage 2 without stage 1 before it (`train.stage2_alone`)."""
Curve = Literal["natural", "budget_forced"]
MatchKind = Literal["contaminated", "template_match"]
Convention = Literal["final_answer", "last_number", "math_verify", "string_match", "qwen_math", "lm_eval"]
"""Whose rules say what the answer of a response is and when it is right (`evaluate/conventions.py`)."""
CONVENTIONS: dict[Convention, str] = {
    "final_answer": "ours: the last box after the thought, else a clear final statement; equal in value",
    "last_number": "the last number in the text, whatever the format",
    "math_verify": "the library Math-Verify, as its README has it",
    "string_match": 'the last box, or what follows "answer is"; the same text in Minerva\'s spelling',
    "qwen_math": 'Qwen2.5-Math\'s: the last box, "answer is" or number; equal to 1e-4, percentages either way',
    "lm_eval": "lm-evaluation-harness's: hendrycks_math, or minerva_math for those who write its last sentence",
}
"""What each one does, in a line."""

RejectReason = Literal[
    # curate
    "malformed_row", "malformed_latex", "deselected", "too_short", "too_long", "wrong_language", "needs_image",
    "multi_part", "multiple_choice", "proof", "no_answer", "unparsable_answer", "non_numeric",
    "duplicate", "near_duplicate", "contaminated", "template_match",
    # reformat, distill, verify: the last answer of the model was ...
    "request_failed", "refused", "truncated", "wrong_answer", "no_final_answer", "timeout",
    # and of reformat
    "mentions_original", "too_few_steps",
    # verify
    "not_selected", "no_reflection", "too_similar",
]  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A problem with a labelled answer. `problem_id` is the hash of the normalised text.

    `source` is the set's name in the config, `subset` the part of it where it has parts, `origin` where it was
    published: a URI, or `owner/name@revision` of a hub.
    """

    problem_id: str
    problem: str
    answer: str
    answer_type: AnswerType
    solution: str | None
    source: str
    license: str
    level: str | None
    subset: str | None = None
    origin: str = ""


@dataclass(frozen=True)
class Rejected:
    """A dropped row: `row` is the row itself as JSON, `row_id` its id (or its place in the source)."""

    row_id: str
    stage: str
    reason: RejectReason
    detail: str
    row: str


@dataclass(frozen=True)
class BenchmarkMatch:
    """A problem that resembles one of a benchmark, `item` ("math500/test/algebra/12.json").

    `contaminated` problems are dropped; a `template_match` differs in its numbers only. `covered` is the share of the
    item's words that stand in the problem in runs of 4, `longest` their longest run that no other item has, in words.
    """

    problem_id: str
    item: str
    kind: MatchKind
    covered: float
    longest: int
    problem: str
    benchmark_problem: str


@dataclass(frozen=True)
class Trace:
    """One paid answer of a teacher. `cost_usd` is priced by the config's table, `latency_s` in seconds.

    `prompt` is all that was asked: of a conversation every turn.
    `reasoning` is the long thought where the provider sends it apart from the answer, and the text
    inside `<think>` where it does not. `error` explains a status other than `ok`.
    """

    trace_id: str
    request_id: str
    problem_id: str
    sample_index: int
    method: Method
    prompt: str
    response: str
    reasoning: str | None
    status: TraceStatus
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_s: float
    model: str


@dataclass(frozen=True)
class Verdict:
    """A grade, keyed by (`trace_id`, `grader`). `matched_by` names the rule that decided."""

    trace_id: str
    grader: GraderName
    verdict: VerdictName
    extracted: str | None
    matched_by: str
    seconds: float


@dataclass(frozen=True)
class PassRate:
    """How hard a problem is for the teacher: of so many answers so many are right. `tokens` of prompts and answers.

    Sampling that stops at the first right answers makes `correct / samples` too high: 1 / 1 says little.
    """

    problem_id: str
    samples: int
    correct: int
    tokens: int


@dataclass(frozen=True)
class Fault:
    """Why one attempt to rewrite a solution, the trace of this id, cannot be used. `detail` says what was found."""

    trace_id: str
    problem_id: str
    reason: RejectReason
    detail: str


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A training conversation in the Hugging Face `messages` convention."""

    example_id: str
    stage: TrainStage
    problem_id: str
    trace_id: str
    messages: list[Message]


@dataclass(frozen=True)
class PackedRow:
    """Several examples in one sequence; attention stays inside each. `lengths` are theirs, in tokens.

    `labels` is the token to predict *from* each position of `input_ids` (already shifted), or -100.
    """

    example_ids: list[str]
    lengths: list[int]
    input_ids: list[int]
    labels: list[int]
    target_tokens: int


@dataclass(frozen=True)
class Step:
    """One optimizer step of training. `loss` is the mean over the target tokens of the global batch.

    `fill` is the share of the packed rows that examples fill; `mfu` the share of the devices' peak that the operations needed
    make (None where the peak is not known); `memory` the most bytes that rank 0 held so far. The times are rank 0's;
    `checkpoint_s` is the time for which the training waited for the checkpoint before this step, `upload_s` what the way to
    storage took of those checkpoints that arrived there during this step: the training did not wait for it.
    """

    stage: TrainStage
    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    target_tokens: int
    seconds: float
    fill: float
    mfu: float | None
    memory: int
    data_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    checkpoint_s: float
    upload_s: float


@dataclass(frozen=True)
class Generation:
    """One answer of an evaluated model. `tokens` and `prompt_tokens` are ids of the model's own tokenizer.

    `token_ends` is how many characters of the response stand after each token. All three are empty where
    the endpoint does not tell them: then the answer cannot be cut at a budget.
    """

    generation_id: str
    model: str
    benchmark: str
    problem_id: str
    sample_index: int
    problem: str
    answer: str
    level: str | None
    subset: str | None
    response: str
    status: TraceStatus
    error: str | None
    prompt_tokens: list[int]
    tokens: list[int]
    token_ends: list[int]
    completion_tokens: int
    latency_s: float


@dataclass(frozen=True)
class Score:
    """A generation graded at one token budget under one convention.

    `tokens` counts what the answer cost at this budget, the forced answer included. `truncated`: the
    response had not ended at the budget. `forced`: the answer was asked for after the cut.
    """

    generation_id: str
    model: str
    benchmark: str
    problem_id: str
    sample_index: int
    curve: Curve
    budget: int
    convention: Convention
    verdict: VerdictName
    extracted: str | None
    tokens: int
    truncated: bool
    forced: bool


@dataclass(frozen=True)
class Vote:
    """What k of a problem's natural-length answers come to together, as an expectation over all subsets of k of its `n` samples.

    `majority` is the probability that their majority vote is right (maj@k), `passed` that one of them is (pass@k), `tokens` what
    they cost together.
    """

    model: str
    benchmark: str
    problem_id: str
    convention: Convention
    k: int
    n: int
    majority: float
    passed: float
    tokens: float


R = TypeVar("R")


@cache
def arrow_schema(record: type) -> pa.Schema:
    """The Arrow schema of a record type. Only `X | None` fields are nullable."""
    hints = typing.get_type_hints(record)
    fields = [_arrow_field(field.name, hints[field.name]) for field in dataclasses.fields(record)]
    return pa.schema(fields)


def _arrow_field(name: str, hint: Any) -> pa.Field:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return pa.field(name, _arrow_type(inner), nullable=True)
    return pa.field(name, _arrow_type(hint), nullable=False)


def _arrow_type(hint: Any) -> pa.DataType:
    if typing.get_origin(hint) is Literal:
        return pa.string()
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow_type(typing.get_args(hint)[0]))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return pa.struct(list(arrow_schema(hint)))
    return {str: pa.string(), bytes: pa.binary(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]


def to_row(record: Any) -> dict[str, Any]:
    """The record as a plain dict, nested records included. Lists of numbers, which may be long, are not copied."""
    kind = type(record)
    row = {name: getattr(record, name) for name in _field_names(kind)}  # type: ignore[arg-type]
    for name in _nested_records(kind):  # type: ignore[arg-type]
        value = row[name]
        row[name] = [to_row(item) for item in value] if isinstance(value, list | tuple) else value and to_row(value)
    return row


def to_json(record: Any) -> str:
    """The record as JSON, for the `row` of a `Rejected`."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False)


def from_row(record: type[R], row: Mapping[str, Any]) -> R:
    """The record of a dict such as Arrow or Ray Data gives; keys the record lacks are ignored."""
    values = {name: row[name] for name in _field_names(record)}  # type: ignore[arg-type]
    for name, inner in _nested_records(record).items():  # type: ignore[arg-type]
        value = values[name]
        values[name] = [from_row(inner, item) for item in value] if isinstance(value, list) else from_row(inner, value)
    return record(**values)


@cache
def _field_names(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(record))


@cache
def _nested_records(record: type) -> dict[str, type]:
    """The fields that hold a record or a list of them."""
    hints = typing.get_type_hints(record)
    inner = {name: (*typing.get_args(hints[name]), hints[name])[0] for name in _field_names(record)}
    return {name: kind for name, kind in inner.items() if dataclasses.is_dataclass(kind) and isinstance(kind, type)}


def to_table(record: type, rows: Iterable[Any]) -> pa.Table:
    """An Arrow table of records, with the record's schema even when there are none."""
    return pa.Table.from_pylist([to_row(row) for row in rows], schema=arrow_schema(record))


def from_table(record: type[R], table: pa.Table) -> list[R]:
    """The records of an Arrow table."""
    return [from_row(record, row) for row in table.to_pylist()]


SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁻ⁿ]+")


def digest(*parts: object) -> str:
    """A 16-hex-digit id of the parts: the same in every process and on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def encodable(text: str) -> str:
    """The text with lone surrogates replaced: JSON may hold them (half of an emoji), UTF-8 and Arrow may not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def normalized(text: str) -> str:
    """Text for comparing problems: NFKC, lower case, every run of white space one blank."""
    powers = SUPERSCRIPTS.sub(r"^\g<0>", text)  # NFKC alone makes 52 of 5²
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", powers)).strip().lower()


def problem_id(text: str) -> str:
    """The id of a problem: the hash of its normalised text."""
    return digest(normalized(text))
