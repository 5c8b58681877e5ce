"""The whole flow: every stage in order, each from the tables of those before it.

curate     problem sets                 -> 1_curate/problems, rejected
reformat   problems, their solutions    -> 2_reformat/examples (stage-1 text), traces, faults, rejected
distill    problems                     -> 3_distill/traces, rejected
verify     traces, gold answers         -> 4_verify/examples (stage-2 text), verdicts, rejected
train      both sets of examples        -> 5_train/models/stage1, stage2, steps, rejected
serve      model folders                -> an HTTP endpoint; 6_serve/serve.yaml, smoke
evaluate   endpoint, benchmarks         -> 7_evaluate/generations, scores, rejected
report     all manifests and scores     -> 8_report/index.html, report.md, report.json

The first four also get a dataset card, README.md.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

from pipeline import log
from pipeline.chat.reach import key_of
from pipeline.config import STAGES, Config
from pipeline.errors import ConfigError, StoppedError
from pipeline.evaluate.generate import endpoint_of
from pipeline.stage import Manifest, StageFolder, root_of
from pipeline.storage import Place, held
from ray_jobs import card, report, stopping
from ray_jobs.teacher import replayed


def run(config: Config) -> None:
    """Run all stages; complete ones are skipped."""
    stopping.listen()
    root = _root(config)
    if StageFolder(root, "distill").manifest() is None:
        import_module("pipeline.train.prepare").check(config)  # the student is looked at before a teacher is paid
    _require_keys(config, root)
    with held(root, stopping.root_lost), _surroundings(config):
        for stage in STAGES:
            run_stage(config, stage)
    print(artifacts(root), flush=True)
    report.show(config)


def _require_keys(config: Config, root: Place) -> None:
    """Of whom the stages after `distill` will ask: what is missed only there is missed when a teacher is paid."""
    judge, served = config.verify.judge, endpoint_of(config, config.serve.models[0], "http://127.0.0.1")
    asked = {
        "verify": judge.endpoint if judge else None,
        "serve": served,
        "evaluate": config.evaluate.endpoint or served,
    }
    for stage, endpoint in asked.items():
        if endpoint and StageFolder(root, stage).manifest() is None:
            for way in endpoint.ways:
                key_of(way)


def run_one(config: Config, stage: str) -> None:
    """Run one stage. `serve` stays up until it is interrupted."""
    stopping.listen()
    with ExitStack() as hold:
        hold.enter_context(held(_root(config), stopping.root_lost))
        with _surroundings(config):
            run_stage(config, stage)
            if stage == "serve":
                hold.close()  # what is served may be evaluated meanwhile
                import_module("ray_jobs.serve").keep_up(config)
    if stage == "report":
        report.show(config)


def _root(config: Config) -> Place:
    """The run's folder, where it will stay."""
    root = root_of(config)
    if "/working_dir_files/" in root.uri:
        raise ConfigError(
            f"storage.root is {config.storage.root!r}, inside the job's working folder, which Ray deletes after it: "
            "give a URI such as s3://bucket/run, or an absolute path"
        )
    return root


@contextmanager
def _surroundings(config: Config) -> Iterator[None]:
    """What stages need beside the cluster: replay teachers before them, no served model left behind them."""
    with replayed(config):
        try:
            yield
        finally:
            # Not imported above, for it is heavy: a run with nothing to do is over at once.
            if "ray_jobs.serve" in sys.modules:
                sys.modules["ray_jobs.serve"].stop(config)


def run_stage(config: Config, stage: str) -> Manifest:
    """Run one stage and say what it did. Its module is imported only now: most are heavy."""
    job: Callable[[Config], Manifest] = import_module(f"ray_jobs.{stage}").run
    folder = StageFolder(root_of(config), stage)
    was_complete = False
    with log.about(run=folder.root.uri, stage=stage):
        try:
            was_complete = folder.manifest() is not None
            manifest = job(config)
        except (KeyboardInterrupt, StoppedError):
            if stopping.root_is_ours:
                folder.interrupt()
            log.warn("interrupted")
            raise
        except Exception as error:
            log.warn("failed", error=str(error))
            raise
        if not was_complete:
            log.note("complete", rows_in=manifest.rows_in, rows_out=manifest.rows_out, lost=manifest.lost)
    print(summary(manifest, folder.place.uri, was_complete), flush=True)
    card.write_missing(config, stage, was_complete)
    return manifest


def artifacts(root: Place) -> str:
    """Where the tables of all complete stages lie, and how many rows they have."""
    lines = []
    for stage in STAGES:
        folder = StageFolder(root, stage)
        if manifest := folder.manifest():
            tables = ", ".join(f"{name} {count:,}" for name, count in manifest.tables.items())
            lines.append(f"  {folder.place.uri}{f': {tables}' if tables else ''}")
    return "\n".join(["artifacts:", *lines])


def summary(manifest: Manifest, uri: str, was_complete: bool) -> str:
    """One line on a finished stage."""
    if was_complete:
        return f"[{manifest.stage}] complete already: {manifest.rows_out:,} rows at {uri}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.rejected.items())
    parts = [
        f"{manifest.rows_in:,} in, {manifest.rows_out:,} out",
        f"{sum(manifest.rejected.values()):,} rejected ({reasons})" if reasons else "",
        f"{manifest.requests:,} requests" if manifest.requests else "",
        f"{manifest.stored_replies:,} from the store" if manifest.stored_replies else "",
        f"{manifest.completion_tokens:,} tokens" if manifest.completion_tokens else "",
        f"${manifest.cost_usd:,.4f}" if manifest.cost_usd else "",
        f"{manifest.seconds:,.0f} s",
    ]
    actors = ", ".join(f"{count} {name}" for name, count in manifest.ray_actors.items())
    worked = f"\n[{manifest.stage}] Ray actors: {actors}" if actors else ""
    if manifest.spilled_bytes:
        worked += f"; {manifest.spilled_bytes / 2**20:,.0f} MiB did not fit in Ray's memory and went by its disks"
    if manifest.lost:
        worked += f"; lost on the way: {', '.join(f'{count} {name}' for name, count in manifest.lost.items())}"
    return f"[{manifest.stage}] done: {', '.join(part for part in parts if part)} -> {uri}{worked}"
