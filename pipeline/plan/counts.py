"""How many requests the stages make, and of how many tokens, where neither tables nor recordings tell.

In: how much there is to ask about, and a stage's settings. Out: `Asked`. At least and at most are what the settings allow,
whatever a model answers; what is likely follows from `assumptions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import Config, Distill, Evaluate, Judge, Reformat
from pipeline.plan import assumptions as assumed
from pipeline.plan.asking import NOT_ASKED, Asked
from pipeline.plan.estimate import NOTHING, Estimate, exactly


@dataclass(frozen=True)
class Texts:
    """Texts, and the tokens of one on average."""

    count: Estimate
    tokens: Estimate

    @property
    def total(self) -> Estimate:
        """Tokens of all."""
        return self.count * self.tokens


@dataclass(frozen=True)
class Problems:
    """Problems, with the tokens of a problem and of its solution on average."""

    count: Estimate
    tokens: Estimate
    solution: Estimate

    @property
    def texts(self) -> Texts:
        """Without their solutions."""
        return Texts(self.count, self.tokens)


def rewriting(problems: Problems, settings: Reformat, max_tokens: int) -> Asked:
    """A request for each problem, and another one for each attempt that a check finds fault with."""
    again = faults = NOTHING
    share = exactly(1)
    for _ in range(settings.attempts - 1):
        share = share * assumed.FAULTY
        again, faults = again + share, faults + share
    requests = problems.count * (exactly(1) + again)
    written = (problems.solution * assumed.REWRITTEN).at_most(max_tokens)
    prompt = problems.tokens + problems.solution + exactly(assumed.REWRITE_PROMPT_TOKENS)
    # What is asked again shows the failed text once more.
    return Asked(requests, requests * prompt + problems.count * again * written, requests * written)


def samples(problems: Problems, settings: Distill, thought: Estimate, right: Estimate, max_tokens: int) -> Asked:
    """Answers of the teacher until `keep` are right, `max_samples` at most."""
    least = 1 if settings.give_up_tokens else settings.keep
    each = Estimate(least, tries(settings.keep, settings.max_samples, right.likely), settings.max_samples)
    requests = problems.count * each
    asked = exactly(80) if settings.long_thought_prompt else assumed.ASKED_PROMPT_TOKENS
    return Asked(requests, requests * (problems.tokens + asked), requests * thought.at_most(max_tokens))


def tries(keep: int, most: int, right: float) -> float:
    """How many tries are expected until `keep` succeed, each with a chance of `right`, or `most` are made."""
    having = [1.0] + [0.0] * keep  # the chance of having so many
    expected = 0.0
    for _ in range(most):
        expected += sum(having[:keep])
        having = [
            having[n] * (1 - right if n < keep else 1) + (having[n - 1] * right if n else 0) for n in range(keep + 1)
        ]
    return expected


def chosen(problems: Estimate, traces: Estimate, config: Config, right: Estimate) -> Estimate:
    """Traces that the student learns from: right ones, of each problem `verify.max_per_problem` at most."""
    most, wanted = config.distill.max_samples, config.verify.max_per_problem
    found = problems * Estimate(*(1 - (1 - each) ** most for each in (right.low, right.likely, right.high)))
    return (found * wanted).at_most(traces * right)


def judging(traces: Estimate, problems: Problems, settings: Judge | None) -> Asked:
    """A question about each trace that the grader cannot read, and about some of those it calls wrong."""
    if settings is None:
        return NOT_ASKED
    share = assumed.JUDGED
    requests = traces * Estimate(0, min(1, share.likely + 0.2 * settings.incorrect_share), 1)
    prompt = problems.tokens + exactly(assumed.JUDGE_PROMPT_TOKENS)
    most = settings.endpoint.sampling.max_tokens
    return Asked(requests, requests * prompt, requests * assumed.OPINION_TOKENS.at_most(most))


@dataclass(frozen=True)
class Answers:
    """How long a model's answers are, in tokens: a few of them, or what it learns from; none where nothing is known."""

    lengths: Sequence[float] = ()

    def mean(self, most: int) -> Estimate:
        """Of an answer, of which at most so many tokens are taken."""
        if not self.lengths:
            return assumed.ANSWER_TOKENS * most
        cut = sum(min(each, most) for each in self.lengths) / len(self.lengths)
        return (assumed.AS_LEARNED * cut).at_most(most)

    def longer(self, than: int, most: int) -> float:
        """The share of those that are longer than so much, or as long as an answer may be."""
        if not self.lengths:
            return 0.5
        return sum(each > than or each >= most for each in self.lengths) / len(self.lengths)


def evaluating(benchmark: Texts, settings: Evaluate, answers: Answers) -> Asked:
    """A model's answers to a benchmark (whose tokens are those of its prompts), a thought that is gone on with, and at each budget an answer that is forced where one is
    longer.
    """
    questions = benchmark.count * settings.samples
    most = settings.budgets[-1]
    prompt, said = benchmark.tokens, answers.mean(most)
    asked = Asked(questions, questions * prompt, questions * said)
    own = settings.endpoint is None  # another one may not tell the token ids that budgets are cut by
    if settings.waits:
        longer = questions * Estimate(0, settings.waits if own else 0, settings.waits)
        asked += Asked(longer, longer * (prompt + said), longer * said * 0.5)
    for budget in settings.budgets:
        forced = questions * Estimate(0, answers.longer(budget, most) if own else 0, 1)
        tokens = prompt + exactly(budget + assumed.FORCED_PROMPT_TOKENS)
        takes = Estimate(1, assumed.FORCED_TOKENS, settings.forced_answer_tokens)
        asked += Asked(forced, forced * tokens, forced * takes)
    return asked


def models_of(config: Config) -> tuple[str, ...]:
    """What is evaluated: the run's own models, or the one of `evaluate.endpoint`."""
    endpoint = config.evaluate.endpoint
    return config.evaluate.models if endpoint is None else (endpoint.model,)


def questions(config: Config, benchmarks: Mapping[str, Texts]) -> Estimate:
    """Answers of all models to all benchmarks."""
    asked = NOTHING
    for benchmark in benchmarks.values():
        asked += benchmark.count
    return asked * (config.evaluate.samples * len(models_of(config)))
