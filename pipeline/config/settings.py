"""The stages' settings, and `Config`, which holds them all; the doc of a setting stands under it."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.endpoints import Endpoint
from pipeline.config.section import (
    DISTINCT,
    RUNTIME,
    Positive,
    RuntimeCpus,
    RuntimePositive,
    RuntimeSeconds,
    RuntimeStr,
    Section,
)
from pipeline.config.sets import Benchmark, Source, known_benchmarks, names_of_their_own
from pipeline.config.training import Train
from pipeline.records import AnswerType, Convention

STAGES = ("curate", "reformat", "distill", "verify", "train", "serve", "evaluate", "report")
"""The stages in their order: stage n of a run lives in the folder `{n}_{name}`."""

OF_ENGINE = {
    "model": "models", "served_model_name": "models", "max_model_len": "max_model_len", "dtype": "dtype",
    "tensor_parallel_size": "replica_gpus",
}  # fmt: skip
"""Engine arguments that other settings of `serve` decide."""
OF_REQUESTS = (
    "model", "messages", "stream", "n", "seed", "temperature", "max_tokens", "max_completion_tokens", "return_token_ids", "logprobs",
)  # fmt: skip
"""Fields of a request that evaluation sets itself."""
ModelName = Literal["base", "stage1", "stage2", "stage2_alone"]
"""The models of a run: the one it starts from, and what each stage of training makes of it."""


class Storage(Section):
    """Where the run lives."""

    root: RuntimeStr
    """URI of the run's folder: a path, `s3://bucket/run`, `gs://bucket/run`."""
    endpoint: Annotated[str | None, RUNTIME] = None
    """URL of an S3 service that is not AWS (MinIO, R2, ...). Falls back to $AWS_ENDPOINT_URL_S3 and $AWS_ENDPOINT_URL."""

    @model_validator(mode="before")
    @classmethod
    def _endpoint_from_environment(cls, values: Any) -> Any:
        endpoint = endpoint_from_environment()
        return {"endpoint": endpoint, **values} if endpoint and isinstance(values, dict) else values

    @model_validator(mode="after")
    def _root_can_be_written(self) -> "Storage":
        uri = re.match(r"(\w{2,}):/(/?)", self.root)
        if uri and (uri[1] in ("http", "https", "hf") or not uri[2]):
            raise ValueError(f"root is {self.root!r}: give a path, or a URI as s3://bucket/run or gs://bucket/run")
        return self


def endpoint_from_environment() -> str | None:
    """The S3 service that AWS's own tools would ask."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


class Cluster(Section):
    """What may be asked of Ray."""

    wait_s: RuntimeSeconds = 45
    """How long a stage waits for resources the cluster does not have yet. Raise it where an autoscaler adds nodes."""
    cpu_node_labels: Annotated[dict[str, str], RUNTIME] = Field(default_factory=dict)
    """Ray's labels of the nodes that work without GPUs goes to. Give them where an autoscaler (version 2) has such nodes, else that work
    may go to GPU nodes that are up for other work, and keep them."""


class Curate(Section):
    """Stage 1: which problems are kept."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    answer_types: tuple[AnswerType, ...] = ("integer", "decimal", "fraction", "percentage", "real")
    """Types of answer to keep (paper, section 2.3: numerical answers). With `choice`, multiple choice stays as it is."""
    languages: Annotated[tuple[Annotated[str, Field(pattern="^[a-z]{2}$")], ...], Field(min_length=1)] = ("en",)
    """ISO 639-1 codes of the languages to keep."""
    min_chars: Positive = 8
    """Shortest problem."""
    max_chars: Positive = 8_000
    """Longest problem."""
    duplicate_threshold: Annotated[float | None, Field(ge=0.5, le=1)] = 0.7
    """Jaccard similarity of the 3-word runs of two problems from which on one is dropped. Null: only equal ones."""
    duplicate_givens: Literal["same", "any"] = "same"
    """`same`: a near duplicate has the same numbers and the same answer; `any`: its words alone count."""
    benchmarks: tuple[Benchmark, ...] = Field(default_factory=known_benchmarks)
    """Benchmarks whose problems are kept out, beside those of `evaluate`. All ready-made ones that are no training sets,
    unless given: on a machine that does not reach the hub give files, or `[]`."""
    drop_templates: bool = False
    """Drop problems that differ from a benchmark's in their numbers only, too. They are reported in any case."""
    actors: RuntimePositive = 2
    actor_cpus: RuntimeCpus = 1

    @model_validator(mode="after")
    def _sources_have_names_of_their_own(self) -> "Curate":
        names_of_their_own("sources", self.sources)
        return self


class Reformat(Section):
    """Stage 2: solutions rewritten step by step."""

    min_chars: Positive = 80
    """Shortest rewritten solution."""
    min_ratio: Annotated[float, Field(ge=0)] = 1.0
    """Its shortest length as a multiple of the original's (paper, section 2.3: longer). Lower it for long originals."""
    min_steps: Positive = 3
    """Fewest steps in it: lines, and of a line its sentences."""
    attempts: Positive = 2
    """How often a rewriting is asked for, each time with what was wrong before, until its problem is rejected."""
    actors: RuntimePositive = 2
    actor_cpus: RuntimeCpus = 1


class Distill(Section):
    """Stage 3: long thoughts from the teacher."""

    method: Literal["distill"] = "distill"
    keep: Positive = 1
    """Correct traces wanted of each problem: sampling stops when they are there."""
    max_samples: Positive = 4
    """Most traces asked for a problem. Equal to `keep`: so many of each, right or wrong."""
    give_up_tokens: Positive | None = None
    """Leave a problem when its first correct trace is expected to take more tokens than this. Null: only `max_samples`."""
    further_worth: Annotated[float, Field(gt=0, le=1)] = 0.125
    """A further correct trace of a problem may take so much of `give_up_tokens`."""
    long_thought_prompt: bool = False
    """Ask for a long thought in words, for a teacher that hides its own (paper, section 2.2)."""
    actors: RuntimePositive = 2
    actor_cpus: RuntimeCpus = 1

    @model_validator(mode="after")
    def _keep_is_reachable(self) -> "Distill":
        if self.keep > self.max_samples:
            raise ValueError(f"keep is {self.keep}, more than max_samples, {self.max_samples}: raise max_samples")
        return self


class Judge(Section):
    """A model that judges answers the grader cannot read."""

    endpoint: Endpoint
    incorrect_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the answers that the grader calls wrong to be judged too. They stay wrong: it measures the grader."""


class Verify(Section):
    """Stage 4: which traces the student learns from."""

    max_per_problem: Positive = 1
    """Most correct traces of one problem."""
    prefer: Literal["longest", "shortest", "reflective"] = "longest"
    """Which of them: by the length of the thought, or by how often it doubts, checks and turns back."""
    min_thought_chars: Annotated[int, Field(ge=0)] = 0
    """Shortest thought. A trace without one counts by its response."""
    max_thought_chars: Positive | None = None
    """Longest thought."""
    min_reflections: Annotated[int, Field(ge=0)] = 0
    """How often a thought must doubt, check or turn back ("wait", "let me check", "that's not right")."""
    max_similarity: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Of one problem's traces none more alike are learnt from: Jaccard similarity of 3-word runs."""
    training_text: Literal["think", "response"] = "think"
    """`think`: `<think>` reasoning `</think>` response; `response`: the response alone."""
    judge: Judge | None = None
    """Null: what the grader cannot read is not learnt from."""
    actors: RuntimePositive = 2
    actor_cpus: RuntimeCpus = 1


class Serve(Section):
    """Stage 6: the student behind an OpenAI-compatible HTTP endpoint."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1), DISTINCT] = ("stage2",)
    """Which models are served together behind the endpoint: `base` and the stages of `train`."""
    max_model_len: Positive
    """Longest prompt and answer together, in tokens."""
    dtype: str = "auto"
    """bfloat16, but float32 on CPUs that lack it (`auto`); or any type of vLLM's."""
    host: RuntimeStr = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536), RUNTIME] = 8000
    api_key_env: Annotated[str | None, Field(pattern="^[A-Z_][A-Z0-9_]*$"), RUNTIME] = None
    """Environment variable with the key that requests must carry, set on every node. Null: whoever reaches it may ask."""
    replicas: RuntimePositive = 1
    """Replicas of each model; the fewest, where `max_replicas` allows more."""
    max_replicas: Annotated[Positive | None, RUNTIME] = None
    """Most replicas of each model: more are started while more requests wait than `requests_per_replica`."""
    requests_per_replica: RuntimePositive = 64
    """Requests in a replica, running and waiting, at which it has enough to do."""
    max_queued: Annotated[Positive | None, RUNTIME] = None
    """Most requests that wait for a replica, each of which then takes on `requests_per_replica` at once: more get 503.
    Null: a replica takes on all."""
    drain_s: RuntimeSeconds = 600
    """How long a replica that is taken down may finish its answers."""
    replica_cpus: RuntimeCpus = 1
    replica_gpus: Annotated[int, Field(ge=0), RUNTIME] = 0
    """GPUs of a replica: the tensor parallel size."""
    ready_timeout_s: RuntimeSeconds = 1800
    """Longest wait for a model to answer after its start."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine arguments, such as `max_num_seqs`. They may decide answers (`quantization`), so they count
    as settings that an evaluation was made with."""
    env: Annotated[dict[str, str], RUNTIME] = Field(default_factory=dict)
    """Environment variables of the replicas. No secrets: what a config says is stored and published."""

    @model_validator(mode="after")
    def _replicas_can_grow(self) -> "Serve":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, fewer than replicas, {self.replicas}: raise it, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _answers_come_whole(self) -> "Serve":
        if "reasoning_parser" in self.engine:
            raise ValueError(
                "engine holds 'reasoning_parser', but evaluation cuts the whole text, thought and all: remove it"
            )
        for name, instead in OF_ENGINE.items():
            if name in self.engine:
                raise ValueError(f"engine holds {name!r}, which {instead} sets: remove it")
        return self


class Evaluate(Section):
    """Stage 7: accuracy against tokens."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1), DISTINCT] = ("base", "stage1", "stage2")
    """Which of the run's own models are evaluated. One that is not among `serve.models` is served alone for it."""
    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    budgets: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Token budgets, rising. The largest is the longest answer that is generated."""
    forced_answer_tokens: Positive = 24
    """Tokens allowed for the answer that is asked for after a cut."""
    waits: Annotated[int, Field(ge=0)] = 0
    """How often a thought that ends before the largest budget is gone on with: "Wait" takes the place of its end (s1, section 3.1).
    At natural length nothing is added."""
    samples: Annotated[int, Field(gt=0, le=1000)] = 1
    """Answers to each problem."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, such as vLLM's `thinking_token_budget` (which wants a `reasoning_config` in
    `serve.engine`)."""
    conventions: Annotated[tuple[Convention, ...], Field(min_length=1), DISTINCT] = ("final_answer", "last_number")
    """How an answer is read and compared: `final_answer` as in training, `last_number` by the last number in the text,
    `math_verify`, `string_match`, `qwen_math` and `lm_eval` as other harnesses do. The first one is the headline."""
    endpoint: Endpoint | None = None
    """Evaluate this model instead of the run's own students. How it is asked (`temperature`, `extra`, `max_in_flight`,
    `timeout_s`) is then said there."""
    max_in_flight: RuntimePositive = 64
    """Requests under way at once, of each actor to each model."""
    timeout_s: RuntimeSeconds = 1800
    actors: RuntimePositive = 1
    actor_cpus: RuntimeCpus = 1

    @model_validator(mode="after")
    def _an_endpoint_is_asked_its_own_way(self) -> "Evaluate":
        if self.endpoint is None:
            return self
        if self.endpoint.stream:
            raise ValueError(
                "endpoint.stream is true, but streams lack the token ids that budgets are cut by: set it false"
            )
        if self.endpoint.sampling.max_tokens != self.budgets[-1]:
            raise ValueError(
                f"endpoint.sampling.max_tokens is {self.endpoint.sampling.max_tokens}, but the largest of budgets is {self.budgets[-1]}: "
                "answers are generated up to that length: make them equal"
            )
        for name, value, there in (
            ("temperature", self.temperature, "sampling.temperature"),
            ("extra", self.extra, "sampling.extra"),
        ):
            if value:
                raise ValueError(f"{name} is {value}, but endpoint is set: set endpoint.{there} instead")
        return self

    @model_validator(mode="after")
    def _extra_leaves_what_is_measured(self) -> "Evaluate":
        for name in OF_REQUESTS:
            if name in self.extra:
                raise ValueError(f"extra holds {name!r}, which evaluation sets itself: remove it")
        return self

    @property
    def sampled_at(self) -> float | None:
        """The temperature of answers; None: the endpoint's own, where it does not say."""
        return self.temperature if self.endpoint is None else self.endpoint.sampling.temperature

    @model_validator(mode="after")
    def _benchmarks_have_names_of_their_own(self) -> "Evaluate":
        names_of_their_own("benchmarks", self.benchmarks)
        return self

    @model_validator(mode="after")
    def _budgets_rise(self) -> "Evaluate":
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets are {list(self.budgets)}: give them once each, in rising order")
        if self.samples > 1 and self.sampled_at == 0:
            raise ValueError(f"samples is {self.samples} at temperature 0, where all are equal: set a temperature")
        return self


class Report(Section):
    """Stage 8: the report."""

    title: str = "Longthought run"
    notes: tuple[str, ...] = ()
    """What a reader must know about the data, shown at the top."""
    samples: Positive = 3
    """Problems whose answers before and after are shown."""
    browse: Annotated[int, Field(ge=0)] = 500
    """Problems whose answers can be searched and filtered on the page, at equal steps of all: 500 of three models with long
    thoughts make a page of some 7 MB."""


class Config(Section):
    """All settings of a run, a section for each stage and for what several of them share."""

    storage: Storage
    cluster: Cluster = Cluster()
    rewriter: Endpoint
    """The cheap model of `reformat`."""
    teacher: Endpoint
    """The model of `distill`."""
    curate: Curate
    reformat: Reformat = Reformat()
    distill: Distill = Distill()
    verify: Verify = Verify()
    train: Train
    serve: Serve
    evaluate: Evaluate
    report: Report = Report()

    @model_validator(mode="after")
    def _models_are_trained(self) -> "Config":
        for name, models in (("serve.models", self.serve.models), ("evaluate.models", self.evaluate.models)):
            if "stage2_alone" in models and not self.train.stage2_alone:
                raise ValueError(
                    f"{name} holds stage2_alone, which is not trained: set train.stage2_alone, or remove it"
                )
        return self

    @model_validator(mode="after")
    def _budget_fits_the_server(self) -> "Config":
        longest = self.evaluate.budgets[-1] + self.evaluate.forced_answer_tokens
        if self.evaluate.endpoint is None and longest >= self.serve.max_model_len:
            raise ValueError(
                f"the largest of evaluate.budgets and its forced answer take {longest} tokens, serve.max_model_len is "
                f"{self.serve.max_model_len}: raise serve.max_model_len above it, with room for the prompt"
            )
        return self
