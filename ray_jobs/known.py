"""What is known of a run before it: read from its tables, its problem files, its benchmarks and its recordings.

In: a config, and what the user says. Out: a `Known`, and lines that say what was counted and what is assumed. Only files of this
machine are read, unless `remote` is set: then also the run's root, problem sets and benchmarks wherever they lie.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.config import STAGES, Benchmark, Config, Endpoint, Source
from pipeline.plan import assumptions as assumed
from pipeline.plan.asking import Asked
from pipeline.plan.counts import Answers, Problems, Texts
from pipeline.plan.estimate import Estimate, exactly
from pipeline.plan.run import ENDPOINT, JUDGE, Examples, Known
from pipeline.records import Example, PackedRow, Problem, Trace, TrainStage
from pipeline.replay import load_recordings
from pipeline.sources import files_of, read, read_benchmark
from pipeline.stage import StageFolder, root_of
from pipeline.storage import Place, count_rows, read_slice
from ray_jobs import rehearsal

MOST_ROWS = 5_000
"""Of problem files so many rows are curated here, at some 2,000 a second; more are only counted."""
MOST_COUNTED = 2_000
"""Problems, traces and examples that are counted one by one; of more the first ones stand for all."""


@dataclass(frozen=True)
class Told:
    """What the user says in place of what could be counted; None where nothing."""

    problems: int | None = None
    tokens: int | None = None
    right: float | None = None
    examples: int | None = None
    remote: bool = False


@dataclass
class _Finder:
    """Looks for what is known of one run."""

    config: Config
    told: Told
    said: list[str] = field(default_factory=list)
    sample: list[Problem] = field(default_factory=list)
    """Problems whose texts are known: all, or the first ones."""
    share: float = 1.0
    """All problems in so many of the sample."""
    asked: dict[str, Asked] = field(default_factory=dict)
    examples: dict[TrainStage, Examples] = field(default_factory=dict)
    rows: list[PackedRow] = field(default_factory=list)
    """Packed examples, if any were counted."""
    traces: list[Trace] | None = None
    trace_texts: Texts | None = None

    def here(self, uri: str) -> bool:
        """Whether a file may be looked at."""
        return self.told.remote or Place(uri).is_local

    def done(self) -> frozenset[str]:
        """The stages that are complete."""
        if not self.here(self.config.storage.root):
            self.said.append(f"{self.config.storage.root} is not looked at: --remote counts what is there")
            return frozenset()
        return frozenset(stage for stage in STAGES if self.folder(stage).manifest() is not None)

    def folder(self, stage: str) -> StageFolder:
        """Of a stage of this run."""
        return StageFolder(root_of(self.config), stage)

    def problems(self, done: frozenset[str], benchmarks: Sequence[Problem]) -> tuple[Estimate, Problems]:
        """Rows that curation reads, and the problems that it leaves."""
        told = self.told.problems
        if told is not None:
            self.said.append(f"{told:,} problems: --problems")
            return exactly(told), self.of_length(exactly(told))
        if "curate" in done:
            table = self.folder("curate").table("problems")
            count = count_rows(table, Problem)
            self.sample = read_slice(table, Problem, 0, MOST_COUNTED)
            self.share = count / max(1, len(self.sample))
            self.said.append(f"{count:,} problems: counted in {table.uri}")
            return exactly(0), self.of_length(exactly(count))
        sources = self.config.curate.sources
        unread = next((source for source in sources if not self.here(source.path)), None)
        if unread is not None:
            where = f"{unread.path} is not read without --remote"
            self.said.append(f"{assumed.PROBLEMS:,} problems: assumed, for {where} (--problems)")
            return exactly(assumed.PROBLEMS), self.of_length(exactly(assumed.PROBLEMS))
        return self._in_files(sources, benchmarks)

    def _in_files(self, sources: Sequence[Source], benchmarks: Sequence[Problem]) -> tuple[Estimate, Problems]:
        endpoint = self.config.storage.endpoint
        files = [(index, file) for index, source in enumerate(sources) for file in files_of(source, endpoint)]
        rows = sum(1 for index, file in files for _ in read(file, sources[index]))
        if rows > MOST_ROWS:
            asked_for = sum(not row.deselected for index, file in files for row in read(file, sources[index]))
            self.said.append(
                f"{asked_for:,} rows of problem files that meet `where`: counted; curation keeps "
                f"{_percent(assumed.KEPT)} of them: assumed (benchmarks/results/curate.md)"
            )
            return exactly(rows), self.of_length(assumed.KEPT * asked_for)
        self.sample = rehearsal.curated(self.config, files, benchmarks)
        self.said.append(f"{len(self.sample):,} problems: left of {rows:,} rows by curation's rules, applied here")
        return exactly(rows), self.of_length(exactly(len(self.sample)))

    def of_length(self, count: Estimate) -> Problems:
        """So many problems, as long as those of the sample."""
        if self.sample:
            chars = exactly(_mean([len(each.problem) for each in self.sample]))
            solutions = exactly(_mean([len(each.solution or "") for each in self.sample]))
        else:
            chars, solutions = assumed.PROBLEM_CHARS, assumed.SOLUTION_CHARS
            self.said.append(
                f"a problem has {chars.likely:,.0f} characters, its solution {solutions.low:,.0f} to {solutions.high:,.0f}: "
                "assumed, as in DeepScaleR, GSM8K, MATH and Omni-MATH"
            )
        return Problems(count, chars * assumed.TOKENS_PER_CHAR, solutions * assumed.TOKENS_PER_CHAR)

    def stages(self, done: frozenset[str]) -> None:
        """What the tables and recordings tell of the stages that ask."""
        for stage in ("reformat", "distill"):
            if (
                stage not in done
                and self.here(self.config.storage.root)
                and self.folder(stage).table("responses").exists()
            ):
                self.said.append(f"{stage} was interrupted: what it has bought already is not taken off")
        self._reformat(done)
        self._distill(done)
        self._verify(done)
        if "train" not in done and self.examples:
            self.said.append("tokens of training: counted by the student's tokenizer")

    def _reformat(self, done: frozenset[str]) -> None:
        if "reformat" in done:
            self._learns("stage1", *self._table("reformat"))
        elif self._recorded("reformat", self.config.rewriter):
            assert self.config.rewriter.replay is not None
            recordings = load_recordings(self.config.rewriter.replay)
            asked, examples = rehearsal.reformatted(self.config, self.sample, recordings)
            self.asked["reformat"] = self._of_all(asked)
            self._learns("stage1", examples, round(len(examples) * self.share))
        else:
            self.said.append(
                f"reformat: texts of {_span(assumed.REWRITTEN)} of the original's length, of which {_percent(assumed.FAULTY)} "
                "are asked for again: assumed"
            )

    def _distill(self, done: frozenset[str]) -> None:
        if "distill" in done:
            table = self.folder("distill").table("traces")
            count = count_rows(table, Trace)
            self.traces = read_slice(table, Trace, 0, MOST_COUNTED)
            self.trace_texts = _texts_of(self.traces, exactly(count))
        elif self._recorded("distill", self.config.teacher):
            assert self.config.teacher.replay is not None
            recordings = load_recordings(self.config.teacher.replay)
            asked, self.traces = rehearsal.distilled(self.config, self.sample, recordings)
            self.asked["distill"] = self._of_all(asked)
            self.trace_texts = _texts_of(self.traces, self.asked["distill"].requests)
        else:
            where = "o1-mini's on MATH500 and AIME2024 (arXiv 2411.16489, table 1)"
            if self.told.tokens is None:
                self.said.append(f"the teacher's answers: {_span(assumed.THOUGHT_TOKENS)} tokens: {where} (--tokens)")
            if self.told.right is None:
                self.said.append(f"right are {_percent(assumed.RIGHT)} of them: {where} (--right)")

    def _verify(self, done: frozenset[str]) -> None:
        judge = self.config.verify.judge
        if "verify" in done:
            self._learns("stage2", *self._table("verify"))
            return
        if self.traces and self.trace_texts and self.share == 1 and len(self.traces) == self.trace_texts.count.likely:
            replay = judge.endpoint.replay if judge else None
            recordings = load_recordings(replay) if replay else None
            asked, examples = rehearsal.verified(self.config, self.sample, self.traces, recordings)
            if asked is not None:
                self.asked["verify"] = asked
            self._learns("stage2", examples, len(examples))

    def _recorded(self, stage: str, endpoint: Endpoint) -> bool:
        """Whether the recordings tell what a stage will ask."""
        told = (self.told.problems, self.told.tokens, self.told.right)
        if not endpoint.replay or not self.sample or told != (None, None, None):
            return False
        of = "" if self.share == 1 else f", for the first {len(self.sample):,} problems, and scaled up"
        self.said.append(f"{stage}: counted with the answers recorded in {endpoint.replay}{of}")
        return True

    def _of_all(self, asked: Asked) -> Asked:
        """Of all problems, where it was counted for the sample."""
        by = exactly(1) if self.share == 1 else Estimate(0.9, 1.0, 1.1) * self.share
        return Asked(asked.requests * by, asked.prompt * by, asked.completion * by)

    def _table(self, stage: str) -> tuple[list[Example], int]:
        """A stage's examples (the first ones), and how many there are."""
        table = self.folder(stage).table("examples")
        return read_slice(table, Example, 0, MOST_COUNTED), count_rows(table, Example)

    def _learns(self, stage: TrainStage, examples: Sequence[Example], count: int) -> None:
        """Take in what a stage of training learns from, of which these are all or the first."""
        if not examples:
            return
        if self.tokenizer is not None:
            self.rows, self.examples[stage] = rehearsal.packed(self.config, self.tokenizer, stage, examples, count)
            return
        questions = exactly(_mean([len(each.messages[0].content) for each in examples])) * assumed.TOKENS_PER_CHAR
        answers = [len(each.messages[-1].content) * assumed.TOKENS_PER_CHAR.likely for each in examples]
        mean = exactly(_mean([len(each.messages[-1].content) for each in examples])) * assumed.TOKENS_PER_CHAR
        self.examples[stage] = Examples(Texts(exactly(count), questions + mean), Answers(answers))

    @cached_property
    def tokenizer(self) -> Any:
        """The student's, where it lies on this machine; else None."""
        name = self.config.train.model
        if not name.startswith("package://") and not (Place(name).is_local and Place(name).exists()):
            return None
        from pipeline.train import model

        return model.load_tokenizer(model.find(name, weights=False))

    def benchmarks(self) -> dict[str, tuple[Texts, list[Problem]]]:
        """Of each benchmark its questions, and its problems where they can be read."""
        return {each.name: self._benchmark(each) for each in self.config.evaluate.benchmarks}

    def _benchmark(self, benchmark: Benchmark) -> tuple[Texts, list[Problem]]:
        if self.here(benchmark.path):
            problems = read_benchmark(benchmark, files_of(benchmark, self.config.storage.endpoint))
            return Texts(exactly(len(problems)), self._prompt([each.problem for each in problems])), problems
        count = exactly(benchmark.problems) if benchmark.problems else assumed.BENCHMARK
        if not benchmark.problems:
            self.said.append(f"{benchmark.name}: {_span(count)} problems: assumed (set its `problems`)")
        return Texts(count, assumed.PROBLEM_CHARS * assumed.TOKENS_PER_CHAR + assumed.ASKED_PROMPT_TOKENS), []

    def _prompt(self, problems: Sequence[str]) -> Estimate:
        """Tokens that a student is asked a problem with, on average."""
        if self.tokenizer is None or self.config.evaluate.endpoint is not None:
            return (
                exactly(_mean([len(each) for each in problems])) * assumed.TOKENS_PER_CHAR + assumed.ASKED_PROMPT_TOKENS
            )
        return exactly(_mean(rehearsal.prompt_lengths(self.tokenizer, problems)))

    def evaluated(self, problems: Sequence[Problem]) -> None:
        """What recordings tell of the model that is evaluated, where it is none of the run's own."""
        endpoint = self.config.evaluate.endpoint
        if endpoint is not None and endpoint.replay and problems:
            self.asked["evaluate"] = rehearsal.evaluated(
                self.config, endpoint, problems, load_recordings(endpoint.replay)
            )


@dataclass(frozen=True)
class Found:
    """What is known, lines that say how, and for a probe what can be read: problems, those of benchmarks, packed examples."""

    known: Known
    said: list[str]
    problems: Sequence[Problem]
    heldout: Sequence[Problem]
    rows: Sequence[PackedRow]


def find(config: Config, told: Told) -> Found:
    """Look for all that is known of a run."""
    finder = _Finder(config, told)
    done = finder.done()
    benchmarks = finder.benchmarks()
    heldout = [problem for _, problems in benchmarks.values() for problem in problems]
    rows, problems = finder.problems(done, heldout)
    finder.stages(done)
    finder.evaluated(heldout)
    thought = assumed.THOUGHT_TOKENS
    if told.tokens is not None:
        thought = exactly(told.tokens)
    elif finder.trace_texts is not None:
        thought = finder.trace_texts.tokens
    known = Known(
        rows=rows,
        problems=problems,
        benchmarks={name: texts for name, (texts, _) in benchmarks.items()},
        thought=thought,
        right=assumed.RIGHT if told.right is None else exactly(told.right),
        asked=finder.asked,
        traces=finder.trace_texts,
        examples=finder.examples,
        example_count=None if told.examples is None else exactly(told.examples),
        done=done,
    )
    return Found(known, finder.said, finder.sample, heldout, finder.rows)


def endpoints(config: Config, done: Collection[str]) -> dict[str, Endpoint]:
    """The models that the stages not done ask over an API, by their names in the config."""
    judge = config.verify.judge
    named = {
        "reformat": ("rewriter", config.rewriter),
        "distill": ("teacher", config.teacher),
        "verify": (JUDGE, judge.endpoint if judge else None),
        "evaluate": (ENDPOINT, config.evaluate.endpoint),
    }
    return {name: endpoint for stage, (name, endpoint) in named.items() if endpoint is not None and stage not in done}


def _texts_of(traces: Sequence[Trace], count: Estimate) -> Texts:
    return Texts(count, exactly(_mean([trace.completion_tokens for trace in traces])))


def _mean(numbers: Sequence[Any]) -> float:
    return float(sum(numbers)) / max(1, len(numbers))


def _span(estimate: Estimate) -> str:
    low, likely, high = (f"{each:,.1f}".removesuffix(".0") for each in (estimate.low, estimate.likely, estimate.high))
    return low if estimate.exact else f"{low} to {high}, likely {likely},"


def _percent(share: Estimate) -> str:
    return f"{share.low:.0%} to {share.high:.0%}, likely {share.likely:.0%},"
