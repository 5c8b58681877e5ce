"""What a whole run will take, with figures that can be checked by hand."""

from typing import Any

import pytest

from pipeline import precision
from pipeline.config import Config, Endpoint, load
from pipeline.errors import ConfigError
from pipeline.plan import asking, counts, run, shapes
from pipeline.plan import assumptions as assumed
from pipeline.plan.asking import Asked
from pipeline.plan.counts import Answers, Problems, Texts
from pipeline.plan.devices import DEVICES
from pipeline.plan.estimate import NOTHING, Estimate, exactly
from pipeline.plan.run import Known, Need, Speed

MILLION = exactly(1_000_000)
SHAPE = shapes.KNOWN["Qwen2.5-72B"]


def endpoint(**settings: Any) -> Endpoint:
    return Endpoint.model_validate({"model": "m", "sampling": {"max_tokens": 32_768}, **settings})


def paper(*overrides: str) -> Config:
    return load("configs/paper_72b.yaml", overrides)


def planned(config: Config, **told: Any) -> dict[str, Need]:
    return {need.stage: need for need in made(config, **told).needs}


def made(config: Config, **told: Any) -> run.Run:
    benchmarks = {"aime": Texts(exactly(30), exactly(100))}
    problems = Problems(told.pop("problems", MILLION), exactly(100), exactly(200))
    known = Known(rows=problems.count, problems=problems, benchmarks=benchmarks, **told)
    return run.of_config(config, known, SHAPE, DEVICES["H100"] if config.train.worker_gpus else None)


EIGHT_OF_EACH = (
    "distill.keep=8", "distill.max_samples=8", "distill.long_thought_prompt=false", "teacher.price.cached_prompt=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def at_scale() -> run.Run:
    """1,000,000 problems x 8 samples of 9,000 tokens, at ten million tokens a minute; two stages of 72B."""
    return made(
        paper(*EIGHT_OF_EACH, "teacher.limits.tokens_per_minute=10000000"), thought=exactly(9000), right=exactly(0.8)
    )


def test_eight_samples_of_a_million_problems_are_eight_million_requests(at_scale):
    distill = next(need for need in at_scale.needs if need.stage == "distill")
    assert distill.asked.requests == exactly(8_000_000)
    assert distill.asked.completion == exactly(72e9)
    assert distill.asked.prompt.likely == 8e6 * (100 + 24)
    # 72,000 million tokens at $4.40, and 992 million at $1.10.
    assert distill.usd.likely == pytest.approx(316_800 + 1_091.2)
    # 72.992 thousand million tokens at ten million a minute.
    assert distill.time is not None and distill.time.seconds.likely == pytest.approx(7299.2 * 60 + 8)
    assert distill.time.bound == "teacher.limits.tokens_per_minute"
    # An answer is stored twice, in the response store and in the table: 3.6 bytes a token, beside its prompt and its ids.
    assert distill.bytes.likely == pytest.approx(72e9 * 3.6 + 0.992e9 + 8e6 * 450)


def test_what_is_graded_and_learned_follows_from_what_is_sampled(at_scale):
    needs = {need.stage: need for need in at_scale.needs}
    assert needs["verify"].rows == exactly(8_000_000)
    assert needs["verify"].asked == asking.NOT_ASKED and needs["verify"].usd == NOTHING
    # Of a million problems nearly all have a right answer among eight, and one of each is learned from, in three epochs.
    stage2 = at_scale.training[1]
    assert stage2.tokens == pytest.approx(3 * 1e6 * (9000 + 124), rel=0.001)
    train = needs["train"]
    assert (
        train.gpus == 32
        and train.time is not None
        and stage2.hours is not None
        and at_scale.training[0].hours is not None
    )
    hours = stage2.hours + at_scale.training[0].hours
    assert train.time.seconds.likely == pytest.approx(hours * 3600 + 2 * 180 + 20, rel=1e-6)
    # 6 operations for each weight and token, at 0.30 of 32 H100s; attention comes on top.
    assert 1.0 < stage2.hours * 3600 / (6 * SHAPE.weights * stage2.tokens / (0.30 * 32 * 989e12)) < 1.1
    # Two models of 2 bytes for a weight; at most with two checkpoints of 14.
    assert train.bytes.low == pytest.approx(2 * 2 * SHAPE.weights, rel=0.25)
    assert train.bytes.high - train.bytes.low > 2 * 14 * SHAPE.weights


@pytest.mark.parametrize(("multiplies", "width"), [(True, 2), (False, 4)])
def test_models_are_stored_as_wide_as_they_compute(monkeypatch, multiplies, width):
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: multiplies)
    on_cpus = ("train.worker_gpus=0", "train.accelerator_type=null", "train.sequence_parallel=1")
    train = planned(paper(*EIGHT_OF_EACH, *on_cpus), thought=exactly(9000))["train"]
    assert train.bytes.low == pytest.approx(2 * width * SHAPE.weights, rel=0.25)
    assert train.bytes.high - train.bytes.low > 2 * (width + 12) * SHAPE.weights


def test_the_bottleneck_is_the_stage_that_takes_longest_and_what_decides_it(at_scale):
    assert at_scale.bottleneck is not None and at_scale.bottleneck.stage == "train"
    slow = made(paper(*EIGHT_OF_EACH, "teacher.limits.tokens_per_minute=1000000"), thought=exactly(9000)).bottleneck
    assert slow is not None and slow.time is not None
    assert (slow.stage, slow.time.bound) == ("distill", "teacher.limits.tokens_per_minute")


@pytest.mark.parametrize(
    ("limits", "hours", "bound"),
    [
        ({"requests_per_minute": 1000}, 1000 / 60, "requests_per_minute"),
        ({"tokens_per_minute": 1_000_000}, 1100 / 60, "tokens_per_minute"),
        ({"input_tokens_per_minute": 10_000}, 10_000 / 60, "input_tokens_per_minute"),
        ({"output_tokens_per_minute": 500_000, "requests_per_minute": 2000}, 2000 / 60, "output_tokens_per_minute"),
    ],
)
def test_the_hours_at_a_limit(limits, hours, bound):
    asked = Asked(exactly(1e6), exactly(100e6), exactly(1000e6))
    taken = asking.time(asked, "teacher", endpoint(limits=limits), "distill", 16, exactly(0.001))
    assert taken.seconds.likely == pytest.approx(hours * 3600) and taken.bound == f"teacher.limits.{bound}"


def test_a_second_key_halves_the_time_and_one_without_a_limit_ends_it():
    asked = Asked(exactly(1e6), exactly(100e6), exactly(1000e6))

    def seconds(**route: Any) -> float:
        routes = [{"base_url": "http://b/v1", **route}]
        both = endpoint(limits={"requests_per_minute": 1000}, routes=routes)
        return asking.time(asked, "teacher", both, "distill", 16, NOTHING).seconds.likely

    assert seconds(limits={"requests_per_minute": 1000}) == pytest.approx(500 * 60)
    assert seconds() < 100


def test_without_limits_the_requests_under_way_decide():
    asked = Asked(exactly(8e6), exactly(0), exactly(72e9))
    taken = asking.time(asked, "teacher", endpoint(max_in_flight=256), "distill", 16, exactly(1 / 50))
    # 9,000 tokens at 50 a second are 180 s; 8 million of them, 4,096 at a time.
    assert taken.seconds.likely == pytest.approx(8e6 * 180 / 4096)
    assert taken.bound == "4,096 under way (teacher.max_in_flight)"
    few = asking.time(
        Asked(exactly(4), exactly(0), exactly(36_000)), "teacher", endpoint(), "distill", 16, exactly(1 / 50)
    )
    assert few.seconds.likely == 180 and few.bound == "the time of one answer"


def test_batches_take_up_to_a_day_each():
    asked = Asked(exactly(1e6), exactly(1e8), exactly(1e9))
    taken = asking.time(asked, "teacher", endpoint(batch={}), "distill", 4, exactly(1))
    assert taken.seconds == Estimate(5 * 3600, 30 * 3600, 120 * 3600) and taken.bound == "teacher's batches"
    few = asking.time(Asked(exactly(10), exactly(1), exactly(1)), "t", endpoint(batch={}), "distill", 1, exactly(1), 4)
    assert few.seconds == Estimate(3600, 4 * 6 * 3600, 4 * 24 * 3600)  # each after the answers to the one before


def test_cached_prompts_make_a_range_of_dollars():
    asked = Asked(exactly(1), exactly(1e6), exactly(1e6))
    assert asking.dollars(asked, endpoint(price={"prompt": 2, "completion": 8}).price) == exactly(10)
    cached = endpoint(price={"prompt": 2, "cached_prompt": 0.5, "completion": 8}).price
    assert asking.dollars(asked, cached) == Estimate(8.5, 10, 10)


@pytest.mark.parametrize(
    ("keep", "most", "right", "expected"),
    [
        (1, 1, 0.5, 1),
        (1, 2, 0.5, 1.5),
        (1, 3, 0.5, 1.75),
        (2, 3, 0.5, 2.75),
        (8, 8, 0.7, 8),
        (1, 4, 1.0, 1),
        (1, 4, 0.0, 4),
    ],
)
def test_sampling_stops_when_enough_are_right(keep, most, right, expected):
    assert counts.tries(keep, most, right) == pytest.approx(expected)


def test_early_stopping_gives_a_range_that_holds_whatever_the_teacher_answers():
    sampled = planned(paper("distill.max_samples=4"), problems=exactly(1000))["distill"].asked.requests
    assert (sampled.low, sampled.high) == (1000, 4000)
    assert sampled.likely == pytest.approx(1000 * counts.tries(1, 4, 0.8))


def test_each_problem_is_rewritten_once_at_least_and_as_often_as_attempts_at_most():
    asked = planned(paper("reformat.attempts=3"), problems=exactly(1000))["reformat"].asked.requests
    assert (asked.low, asked.high) == (1000, 3000)


def test_a_judge_is_asked_and_paid():
    judge = {"endpoint": {"model": "j", "sampling": {"max_tokens": 16}, "price": {"prompt": 1, "completion": 1}}}
    verify = paper().verify.model_copy(update={"judge": type(paper().verify).model_validate({"judge": judge}).judge})
    need = planned(paper().model_copy(update={"verify": verify}), problems=exactly(100))["verify"]
    assert need.asked.requests.low == 0 and need.asked.requests.high == need.rows.high
    assert need.usd.likely == pytest.approx((need.asked.prompt.likely + need.asked.completion.likely) / 1e6)
    assert need.time is not None
    likely = need.asked.completion.likely * assumed.SECONDS_PER_TOKEN.likely
    assert need.time.seconds.likely == pytest.approx(likely / need.asked.requests.likely + 8)  # all at once, of few
    assert need.time.seconds.high < 60


def test_an_evaluation_asks_every_question_once_and_at_every_budget_at_most():
    settings = paper("evaluate.budgets=[512, 1024]", "evaluate.samples=4").evaluate
    asked = counts.evaluating(Texts(exactly(30), exactly(100)), settings, Answers((600,)))
    assert asked.requests == Estimate(120, 240, 360)  # 600 tokens are cut at 512 alone
    assert asked.prompt.likely == 120 * 100 + 120 * (100 + 512 + 9)
    assert asked.completion.likely == 120 * 600 + 120 * 4


def test_what_is_complete_needs_nothing_any_more():
    stages = [need.stage for need in made(paper(), done=frozenset({"curate", "reformat", "distill"})).needs]
    assert stages == ["verify", "train", "serve", "evaluate"]


def test_on_cpus_the_time_is_foretold_only_from_a_probe():
    config = load("configs/demo.yaml")
    shape = shapes.KNOWN["SmolLM2-135M"]
    known = Known(exactly(0), Problems(exactly(100), exactly(30), exactly(30)), {"b": Texts(exactly(10), exactly(60))})

    def needs(speed: Speed) -> dict[str, Need]:
        told = Known(known.rows, known.problems, known.benchmarks, thought=exactly(50), speed=speed)
        return {need.stage: need for need in run.of_config(config, told, shape, None).needs}

    assert needs(Speed())["train"].time is None and needs(Speed())["evaluate"].time is None
    probed = needs(Speed(trained_s=0.005, train_start_s=30, served_s=0.003, serve_start_s=50))
    train, evaluate = probed["train"], probed["evaluate"]
    assert train.time is not None and evaluate.time is not None
    # Two stages, and a GGUF file to unpack, each with a start, and packing.
    assert train.time.seconds.likely == pytest.approx(train.asked.prompt.likely * 0.005 + 3 * 30 + 20)
    served = 0.003 / assumed.SERVE_SHARE
    # stage2 is up, base and stage1 are started alone; Ray Serve is 1.6 times as slow to start, and has a little less of the rate.
    assert evaluate.time.seconds.likely == pytest.approx(evaluate.asked.completion.likely * served + 2 * 80 + 3 * 8)


def test_a_training_that_cannot_fit_is_refused():
    with pytest.raises(ConfigError, match=r"train\.stage1 needs .* set "):
        made(paper("train.zero_stage=2", "train.sequence_parallel=1", "train.activation_checkpointing=false"))
