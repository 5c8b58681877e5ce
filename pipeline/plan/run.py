"""A whole run: what each stage will take, from what is known before it.

In: a config and `Known`: what tables, files, recordings and a probe tell. Out: a `Need` for each stage. What is not known is
estimated by `counts` and `assumptions`; a stage that is complete needs nothing any more, and what it made is known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.config import Config, Endpoint, Optimization
from pipeline.plan import asking, counts, memory, training
from pipeline.plan import assumptions as assumed
from pipeline.plan.asking import NOT_ASKED, Asked, Time
from pipeline.plan.counts import Answers, Problems, Texts
from pipeline.plan.devices import Device
from pipeline.plan.estimate import NOTHING, Estimate, exactly
from pipeline.plan.shapes import Shape
from pipeline.plan.training import Data, StagePlan
from pipeline.records import TrainStage

JUDGE, ENDPOINT = "verify.judge.endpoint", "evaluate.endpoint"
"""What the config calls the endpoints that stand inside of a stage."""


@dataclass(frozen=True)
class Examples:
    """What a stage of training learns from: so many, the tokens of one, and of their answers a few lengths.

    `packed` are the sequences they make, where they were counted.
    """

    texts: Texts
    answers: Answers
    packed: int | None = None


@dataclass(frozen=True)
class Speed:
    """What a probe has measured; None where it was not."""

    token_s: Mapping[str, Estimate] = field(default_factory=dict)
    """Seconds for a token of one answer, of each endpoint by its name in the config."""
    trained_s: float | None = None
    """Seconds for a token in training, by all workers together."""
    train_start_s: float | None = None
    """Of a group of workers, beside its steps."""
    served_s: float | None = None
    """Seconds for a token of vLLM's, at `evaluate.max_in_flight` requests."""
    serve_start_s: float | None = None
    base: Answers = field(default_factory=Answers)
    """How long the untrained model's answers are."""


@dataclass(frozen=True)
class Known:
    """What is known before the stages that are left.

    `rows` are curation's. `asked` are the requests of stages whose recordings tell them, `examples` those that exist or whose
    recordings tell them, `benchmarks` by name.
    """

    rows: Estimate
    problems: Problems
    benchmarks: Mapping[str, Texts]
    thought: Estimate = assumed.THOUGHT_TOKENS
    right: Estimate = assumed.RIGHT
    asked: Mapping[str, Asked] = field(default_factory=dict)
    traces: Texts | None = None
    examples: Mapping[TrainStage, Examples] = field(default_factory=dict)
    example_count: Estimate | None = None
    """Of each stage of training, where the user says it."""
    done: frozenset[str] = frozenset()
    speed: Speed = Speed()


@dataclass(frozen=True)
class Need:
    """What a stage takes. Seconds are None where they are not foretold."""

    stage: str
    rows: Estimate
    asked: Asked = NOT_ASKED
    usd: Estimate = NOTHING
    bytes: Estimate = NOTHING
    time: Time | None = None
    gpus: float = 0
    """At work for all that time."""


@dataclass(frozen=True)
class Run:
    """All stages that are left, in order, and the two stages of training apart."""

    needs: Sequence[Need]
    training: Sequence[StagePlan]

    @property
    def bottleneck(self) -> Need | None:
        """The stage that takes longest, of those whose time is foretold."""
        timed = [need for need in self.needs if need.time is not None]
        return max(timed, key=lambda need: need.time.seconds.likely if need.time else 0, default=None)


def of_config(config: Config, known: Known, shape: Shape, device: Device | None) -> Run:
    """The plan. Raises ConfigError where training cannot fit."""
    examples = _examples(config, known)
    plans = _training(config, examples, shape, device)
    needs = [
        _curate(config, known),
        _reformat(config, known),
        _distill(config, known),
        _verify(config, known),
        _train(config, known, plans, examples, shape),
        _serve(config, known),
        _evaluate(config, known, examples, shape, device),
    ]
    return Run([need for need in needs if need.stage not in known.done], plans)


def _curate(config: Config, known: Known) -> Need:
    seconds = known.rows * (1 / (config.curate.actors * assumed.CURATED_S))
    texts = known.problems.count * (known.problems.tokens + known.problems.solution)
    time = Time(seconds + assumed.ACTORS_S + exactly(assumed.RAY_S), "curate.actors")
    return Need("curate", known.rows, bytes=texts * assumed.TEXT_BYTES + known.rows * assumed.ROW_BYTES, time=time)


def _reformat(config: Config, known: Known) -> Need:
    settings = config.reformat
    asked = known.asked.get("reformat") or counts.rewriting(
        known.problems, settings, config.rewriter.sampling.max_tokens
    )
    time = asking.time(
        asked, "rewriter", config.rewriter, "reformat", settings.actors, _token_s(known, "rewriter", config.rewriter),
        turns=settings.attempts,
    )  # fmt: skip
    return Need(
        "reformat", known.problems.count, asked, asking.dollars(asked, config.rewriter.price),
        _stored(asked) + asked.completion * assumed.TEXT_BYTES, time + assumed.ACTORS_S,
    )  # fmt: skip


def _distill(config: Config, known: Known) -> Need:
    asked = _sampled(config, known)
    settings = config.distill
    time = asking.time(
        asked, "teacher", config.teacher, "distill", settings.actors, _token_s(known, "teacher", config.teacher),
        turns=1 + settings.max_samples - settings.keep,
    )  # fmt: skip
    usd = asking.dollars(asked, config.teacher.price)
    return Need("distill", known.problems.count, asked, usd, _stored(asked), time + assumed.ACTORS_S)


def _sampled(config: Config, known: Known) -> Asked:
    return known.asked.get("distill") or counts.samples(
        known.problems, config.distill, known.thought, known.right, config.teacher.sampling.max_tokens
    )


def _stored(asked: Asked) -> Estimate:
    """Bytes of answers in the response store, and of traces."""
    answers = asked.completion * (assumed.REPLY_BYTES + assumed.TEXT_BYTES)
    return answers + asked.prompt * assumed.TEXT_BYTES + asked.requests * assumed.ROW_BYTES


def _traces(config: Config, known: Known) -> Texts:
    each = known.thought.at_most(config.teacher.sampling.max_tokens)
    return known.traces or Texts(_sampled(config, known).requests, each)


def _verify(config: Config, known: Known) -> Need:
    judge, actors = config.verify.judge, config.verify.actors
    traces = _traces(config, known)
    asked = known.asked.get("verify") or counts.judging(traces.count, known.problems, judge)
    work_s = traces.count * assumed.GRADED_S + traces.total * assumed.WEIGHED_TOKEN_S
    ways, usd = [Time(work_s * (1 / actors), "verify.actors")], NOTHING
    if judge is not None:
        ways.append(asking.time(asked, JUDGE, judge.endpoint, "verify", actors, _token_s(known, JUDGE, judge.endpoint)))
        usd = asking.dollars(asked, judge.endpoint.price)
    stored = traces.total * assumed.TEXT_BYTES + traces.count * (assumed.ROW_BYTES / 2)
    return Need("verify", traces.count, asked, usd, stored, asking.slowest(ways) + assumed.ACTORS_S)


def _examples(config: Config, known: Known) -> Mapping[TrainStage, Examples]:
    """What both stages of training learn from. The third learns from the second's."""
    asked = known.problems.tokens + assumed.ASKED_PROMPT_TOKENS
    written = (known.problems.solution * assumed.REWRITTEN).at_most(config.rewriter.sampling.max_tokens)
    thought = known.thought.at_most(config.teacher.sampling.max_tokens)
    right = counts.chosen(known.problems.count, _traces(config, known).count, config, known.right)
    first = Examples(Texts(known.problems.count * assumed.USABLE, asked + written), Answers((written.likely,)))
    second = Examples(Texts(right, asked + thought), Answers((thought.likely,)))
    found = {"stage1": first, "stage2": second, **known.examples}
    if (count := known.example_count) is not None:
        found = {name: Examples(Texts(count, each.texts.tokens), each.answers) for name, each in found.items()}
    return {**found, "stage2_alone": found["stage2"]}


def _read(examples: Examples, settings: Optimization) -> Estimate:
    """Tokens that a stage of training reads."""
    count = examples.texts.count.at_most(settings.max_examples or math.inf)
    return count * examples.texts.tokens.at_most(settings.max_length) * settings.epochs


def _training(
    config: Config, examples: Mapping[TrainStage, Examples], shape: Shape, device: Device | None
) -> list[StagePlan]:
    data = {
        stage: Data(round(each.texts.count.likely), each.texts.tokens.likely, each.packed)
        for stage, each in examples.items()
    }
    return training.of_run(config.train, shape, device, data)


def _train(
    config: Config, known: Known, plans: Sequence[StagePlan], examples: Mapping[TrainStage, Examples], shape: Shape
) -> Need:
    settings, speed = config.train, known.speed
    tokens, rows, seconds = NOTHING, NOTHING, assumed.PACKING_S
    foretold = True
    unpacked = settings.model.endswith(".gguf")  # which takes as long as a start
    for plan in plans:
        read = _read(examples[plan.stage], settings.optimization(plan.stage))
        tokens, rows = tokens + read, rows + examples[plan.stage].texts.count
        start = assumed.START_S if speed.train_start_s is None else exactly(speed.train_start_s)
        if speed.trained_s is not None:
            seconds += start + read * speed.trained_s
        elif plan.hours is not None:
            seconds += start + read * (plan.hours * 3600 / max(1.0, plan.tokens))
        else:
            foretold = False
    if unpacked and speed.train_start_s is not None:
        seconds += exactly(speed.train_start_s)
    width = memory.weight_bytes(settings)
    models = (len(plans) * width + unpacked * assumed.UNPACKED_BYTES) * shape.weights
    kept = exactly(models) + tokens * assumed.PACKED_BYTES
    checkpoints = settings.keep_checkpoints * (width + assumed.STATE_BYTES) * shape.weights
    time = Time(seconds, f"train.workers = {settings.workers}") if foretold else None
    return Need(
        "train", rows, Asked(NOTHING, tokens, NOTHING), bytes=kept + Estimate(0, 0, checkpoints), time=time,
        gpus=settings.workers * settings.worker_gpus,
    )  # fmt: skip


def _serve(config: Config, known: Known) -> Need:
    settings = config.serve
    models = len(settings.models)
    time = Time(_served(known.speed), "the start of vLLM")
    asked = Asked(exactly(models), NOTHING, NOTHING)  # each is asked whether it answers
    return Need("serve", exactly(models), asked, time=time, gpus=models * settings.replicas * settings.replica_gpus)


def _served(speed: Speed) -> Estimate:
    """Seconds until models are served."""
    return assumed.START_S if speed.serve_start_s is None else exactly(speed.serve_start_s * assumed.SERVE_STARTS)


def _evaluate(
    config: Config, known: Known, examples: Mapping[TrainStage, Examples], shape: Shape, device: Device | None
) -> Need:
    settings, asked = config.evaluate, NOT_ASKED
    for model in counts.models_of(config):
        answers = examples[model].answers if model in examples else known.speed.base  # type: ignore[index]
        for benchmark in known.benchmarks.values():
            asked += counts.evaluating(benchmark, settings, answers)
    questions = counts.questions(config, known.benchmarks)
    stored = asked.completion * assumed.GENERATION_BYTES + asked.requests * assumed.ROW_BYTES
    if (endpoint := settings.endpoint) is not None:
        asked = known.asked.get("evaluate", asked)
        asked_for = asking.time(
            asked, ENDPOINT, endpoint, "evaluate", settings.actors, _token_s(known, ENDPOINT, endpoint)
        )
        usd = asking.dollars(asked, endpoint.price)
        return Need("evaluate", questions, asked, usd, stored, asked_for + assumed.ACTORS_S)
    up = [model for model in settings.models if model in config.serve.models]
    groups = len(settings.models) - len(up) + bool(up)
    side_by_side = max(len(up), 1)
    gpus = side_by_side * config.serve.replicas * config.serve.replica_gpus
    each = _generated_s(config, known.speed, shape, device)
    time: Time | None = None
    if each is not None:
        ways = [
            Time(asked.completion * each * (1 / config.serve.replicas), f"serve.replicas = {config.serve.replicas}")
        ]
        if known.speed.served_s is None:
            most = settings.actors * settings.max_in_flight
            ways.append(
                Time(
                    asked.completion * assumed.SECONDS_PER_TOKEN * (1 / most),
                    f"{most:,} under way (evaluate.max_in_flight)",
                )
            )
        starts = _served(known.speed) * (groups - bool(up))
        time = asking.slowest(ways) + starts + assumed.ACTORS_S * groups
    return Need("evaluate", questions, asked, bytes=stored, time=time, gpus=gpus)


def _generated_s(config: Config, speed: Speed, shape: Shape, device: Device | None) -> Estimate | None:
    """Seconds for a token of one replica; None where it is not foretold."""
    if speed.served_s is not None:
        return exactly(speed.served_s / assumed.SERVE_SHARE)
    if device is None or not config.serve.replica_gpus:
        return None
    operations = device.flops * config.serve.replica_gpus * assumed.SERVED_SHARE
    return assumed.SERVED_SPAN * (2 * shape.weights / operations)


def _token_s(known: Known, name: str, endpoint: Endpoint) -> Estimate:
    """Seconds for a token of an answer. Recordings wait for nothing."""
    return known.speed.token_s.get(name) or (NOTHING if endpoint.replay else assumed.SECONDS_PER_TOKEN)
