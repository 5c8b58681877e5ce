"""Runs stage 7: Ray Data actors ask the served models over HTTP and grade what comes back at every budget."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import ray.data

from pipeline import chat, precision
from pipeline.config import Config, Endpoint
from pipeline.evaluate import conventions
from pipeline.evaluate.budgets import forced, natural, scores
from pipeline.evaluate.generate import Question, endpoint_of, generate
from pipeline.evaluate.voting import votes
from pipeline.grading import Grader
from pipeline.records import Generation, Problem, Rejected, Score, Vote, digest, from_table, to_json, to_table
from pipeline.responses import Segment
from pipeline.sources import files_of, read_benchmark
from pipeline.stage import Manifest, StageRun, model_place
from pipeline.storage import Place
from pipeline.train import marker
from ray_jobs import cluster, serve, tables, worked
from ray_jobs.asking import BATCH_ROWS, Asker, dispatching, requests_made, require_askers, usage
from ray_jobs.dispatching import RemoteDispatcher
from ray_jobs.progress import Progress, Reporter


@dataclass(frozen=True)
class Task:
    """A problem that a model is asked so many times."""

    model: str
    benchmark: str
    samples: int
    problem: Problem


@dataclass(frozen=True)
class Evaluated:
    """What became of a task: its generations, their scores (none where requests failed), and the votes of all together."""

    generations: list[Generation]
    scores: list[Score]
    votes: list[Vote]
    rejected: list[Rejected]


class EvaluateActor:
    """Asks all questions of a batch of tasks at once, grades the answers at every budget, and has them vote."""

    def __init__(
        self,
        config: Config,
        endpoints: dict[str, Endpoint],
        responses: dict[str, Place],
        reporter: Reporter,
        dispatcher: RemoteDispatcher | None,
    ):
        with reporter.joins():
            self._settings = config.evaluate
            self._askers = {
                model: Asker(endpoint, responses[model], reporter, dispatcher) for model, endpoint in endpoints.items()
            }
            self._grader = Grader().warm()  # before a model that may be on these cores is asked

    async def __call__(self, batch: pa.Table) -> pa.Table:
        tasks = from_table(Task, batch)
        models = sorted({task.model for task in tasks})
        groups = ([task for task in tasks if task.model == model] for model in models)
        answered = await chat.all_of(self._group(group) for group in groups)
        return to_table(Evaluated, [row for rows in answered for row in rows])

    async def _group(self, tasks: list[Task]) -> list[Evaluated]:
        asker = self._askers[tasks[0].model]
        return await asker.each(tasks, lambda task: task.problem.problem_id, partial(self._all, asker))

    async def _all(self, asker: Asker, task: Task, client: chat.ChatClient, segment: Segment) -> Evaluated:
        questions = [Question(task.model, task.benchmark, sample, task.problem) for sample in range(task.samples)]
        answered = await chat.all_of(self._one(asker, question, client, segment) for question in questions)
        generations, found = [each for each, _ in answered], [score for _, scores in answered for score in scores]
        voted = await asyncio.to_thread(votes, found, self._grader.same)
        return Evaluated(generations, found, voted, _rejected(generations))

    async def _one(
        self, asker: Asker, question: Question, client: chat.ChatClient, segment: Segment
    ) -> tuple[Generation, list[Score]]:
        generation = await generate(question, client, segment)
        found: list[Score] = []
        if generation.status != "failed":
            read = [natural(generation, self._settings)]
            try:
                read += await forced(generation, self._settings, client, segment)
            except chat.RequestError as error:
                generation = replace(generation, error=f"no score at the budgets: {error}")
            found = await scores(generation, read, self._settings.conventions, self._grader)
        asker.report(failed=generation.error is not None)
        return generation, found


def run(config: Config) -> Manifest:
    """Make `7_evaluate/generations`, `scores`, `votes` and `rejected` (the requests that failed)."""
    own = config.evaluate.endpoint is None
    benchmarks = [(each, files_of(each, config.storage.endpoint)) for each in config.evaluate.benchmarks]
    files = [file for _, files_of_one in benchmarks for file in files_of_one]
    stage = StageRun(config, "evaluate", inputs=("train", "serve") if own else (), files=files)
    if stage.complete:
        return stage.complete
    conventions.check(config.evaluate.conventions)
    problems = [(each[0].name, problem) for each in benchmarks for problem in read_benchmark(*each)]
    if config.evaluate.endpoint:
        asyncio.run(chat.preflight(config.evaluate.endpoint))
    cluster.connect()
    groups = _groups(config)
    total = len(problems) * config.evaluate.samples * sum(map(len, groups))
    evaluated: list[ray.data.Dataset] = []
    with (
        dispatching(config.evaluate.endpoint, stage.folder) as dispatcher,
        Progress("evaluate", total, "answers") as progress,
    ):
        for models in groups:
            if own:
                serve.start(config, config.serve.models if set(models) <= set(config.serve.models) else models)
            require_askers(config, "evaluate", config.evaluate.endpoint)
            if own:
                cluster.require_reach(config, serve.url(config), "set serve.host=0.0.0.0, and serve.api_key_env")
            evaluated.append(_ask(config, stage, models, problems, progress.reporter, dispatcher))
    rows = evaluated[0].union(*evaluated[1:]) if len(evaluated) > 1 else evaluated[0]
    made = {
        name: tables.write(tables.unnest(rows, column, record), stage.folder.table(name), record)
        for name, column, record in (
            ("generations", "generations", Generation),
            ("scores", "scores", Score),
            ("votes", "votes", Vote),
            ("rejected", "rejected", Rejected),
        )
    }
    stage.rejected.update(tables.reasons(stage.folder.table("rejected")))
    return stage.finish(
        rows_in=total,
        rows_out=made["generations"] - stage.rejected.total(),
        tables=made,
        **worked.figures(),
        **requests_made(progress),
        **usage(progress),
    )


def _groups(config: Config) -> list[tuple[str, ...]]:
    """The models in the groups that are served together: those of `serve.models`, which are up already, first."""
    if config.evaluate.endpoint is not None:
        return [(config.evaluate.endpoint.model,)]
    up = tuple(model for model in config.evaluate.models if model in config.serve.models)
    alone: list[tuple[str, ...]] = [(model,) for model in config.evaluate.models if model not in config.serve.models]
    return [up, *alone] if up else alone


def _ask(
    config: Config,
    stage: StageRun,
    models: tuple[str, ...],
    problems: list[tuple[str, Problem]],
    reporter: Reporter,
    dispatcher: RemoteDispatcher | None,
) -> "ray.data.Dataset":
    """Every problem to every one of these models, as a dataset of `Evaluated`."""
    settings = config.evaluate
    endpoints = {model: settings.endpoint or endpoint_of(config, model, serve.url(config)) for model in models}
    responses = {
        model: stage.folder.table("responses") / f"{model.replace('/', '_')}-{_origin(config, model)}"
        for model in models
    }
    tasks = [
        Task(model, benchmark, settings.samples, problem)
        for model in models
        for benchmark, problem in sorted(problems, key=lambda pair: pair[1].problem_id)
    ]
    asked = ray.data.from_arrow(to_table(Task, tasks)).repartition(max(1, min(len(tasks), settings.actors * 4)))
    return tables.actor_map(
        asked,
        EvaluateActor,
        (config, endpoints, responses, reporter, dispatcher),
        actors=settings.actors,
        cpus=settings.actor_cpus,
        batch_rows=max(1, BATCH_ROWS // settings.samples),
    ).materialize()


def _origin(config: Config, model: str) -> str:
    """Answers of an earlier training, or of another way to serve it, must not pass for this one's: each has its own store."""
    if config.evaluate.endpoint is not None:
        return "endpoint"
    settings, made = config.serve, marker.read(Place(model_place(config, model), config.storage.endpoint))
    trained = made.recipe if made else config.train.model
    dtype = precision.computed(settings.dtype, settings.replica_gpus)
    return digest(trained, dtype, settings.max_model_len, settings.engine)


def _rejected(generations: list[Generation]) -> list[Rejected]:
    return [
        Rejected(each.generation_id, "evaluate", "request_failed", each.error or "no answer", to_json(each))
        for each in generations
        if each.error is not None
    ]
