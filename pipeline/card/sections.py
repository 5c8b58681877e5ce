"""The text of a card, a function for each section.

In: `Facts`. Out: lines of Markdown. What comes from problems, models and configs is hostile: it is escaped, or fenced.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pipeline.card.examples import shown, spread
from pipeline.card.facts import Facts
from pipeline.card.provenance import Maker
from pipeline.card.reasons import MEANINGS
from pipeline.figures import count, dollars, duration, share
from pipeline.markdown import cut, escaped, fenced, grid

PAPER = "*O1 Replication Journey, Part 2* ([arXiv 2411.16489](https://arxiv.org/abs/2411.16489))"
NAMES = {
    "curate": "problems",
    "reformat": "rewritten solutions",
    "distill": "sampled long thoughts",
    "verify": "verified long thoughts",
}
WHAT = {
    "curate": "Mathematical problems, each with a labelled answer that a program can compare. They were chosen from "
    "the sets named below; what was left out, and why, is in the table `rejected`.",
    "reformat": "Solutions of mathematical problems, rewritten by a model step by step, in more detail, with the final "
    "answer in a box, and checked. They are the first of two sets that a student model is fine-tuned on.",
    "distill": "Answers of a model to mathematical problems, with its long thoughts where the provider sends them: all "
    "that were sampled, right and wrong ones, ungraded. The grades are made by the next stage, `verify`.",
    "verify": "Long thoughts of a model on mathematical problems, chosen among those whose final answer was graded as "
    "correct. They are the second of two sets that a student model is fine-tuned on.",
}
TABLES = {
    "problems": "a problem with its answer, source, licence and origin",
    "rejected": "a row that was dropped, why, and the row itself as JSON",
    "matches": "a problem that resembles one of a benchmark, and that one",
    "examples": "a conversation to train on, in the `messages` convention",
    "traces": "one answer of the model as it came, with tokens, cost and status",
    "faults": "why one attempt at a rewriting could not be used",
    "pass_rates": "how many of the answers to a problem are right",
    "verdicts": "the grade of one trace by one grader",
}
MOST_SUBSETS = 8


def title(facts: Facts) -> str:
    """The name of the set: the run's, and what it holds."""
    return f"{facts.folder.root.name}: {NAMES[facts.folder.stage]}"


def introduction(facts: Facts) -> Iterator[str]:
    """What it is, and the tables."""
    yield f"# {escaped(title(facts))}\n"
    yield f"{WHAT[facts.folder.stage]}\n"
    yield f"Made by the stage `{facts.folder.stage}` of Longthought, an implementation of {PAPER}.\n"
    rows = ((f"`{name}`", count(n), TABLES.get(name, "")) for name, n in facts.tables.items())
    yield "| table | rows | a row is |\n|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def making(facts: Facts) -> Iterator[str]:
    """When, from what, at what cost, with which settings."""
    made = facts.manifest
    yield "## How it was made\n"
    began = datetime.fromtimestamp(made.started, UTC).strftime("%Y-%m-%d")
    revision = escaped(made.git_revision or "unknown")
    yield f"- on {began}, in {duration(made.seconds)}, with Longthought at commit {revision}"
    yield f"- artifact `{made.artifact}`"
    yield from (f"- from {escaped(name)}: `{made_from}`" for name, made_from in made.inputs.items())
    if made.requests or made.cost_usd:
        spent = f"{count(made.prompt_tokens)} prompt and {count(made.completion_tokens)} completion tokens"
        yield f"- {count(made.requests)} requests, {spent}, {dollars(made.cost_usd)}"
    yield "\nThe settings that decided it, without those that are not set:\n"
    settings = {key: value for key, value in made.settings.items() if value not in (None, {}, [])}
    yield fenced(
        "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()), "yaml"
    )


def provenance(facts: Facts) -> Iterator[str]:
    """The problem sets and their licences."""
    yield "## Origin and licences\n"
    yield f"The rows of `{facts.main}` by the problem set that their problem comes from:\n"
    yield from origin_table(facts)
    yield (
        "\nA licence is what was declared for the set. The rights in problems that the set took from contests and "
        "books were not examined."
    )
    if any(origin.license.lower() == "unknown" for origin in facts.origins):
        yield "\n**A licence is unknown: find it out before these rows are published.**"


def origin_table(facts: Facts) -> Iterator[str]:
    """The sets with their origin, licence, rows and parts."""
    rows = (
        (origin.source, cut(origin.origin, 200), origin.license, count(origin.rows), _subsets(origin.subsets))
        for origin in facts.origins
    )
    yield from grid(("source", "origin", "licence", "rows", "subsets"), rows)


def _subsets(subsets: Mapping[str, int]) -> str:
    ranked = sorted(subsets.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{cut(name, 60)} {count(n)}" for name, n in ranked[:MOST_SUBSETS]]
    rest = ranked[MOST_SUBSETS:]
    return ", ".join(parts) + (f", {count(len(rest))} more with {count(sum(n for _, n in rest))}" if rest else "")


def counts(facts: Facts) -> Iterator[str]:
    """How many rows were kept, and why the others were not."""
    made = facts.manifest
    yield "## What was kept and what was dropped\n"
    yield f"{count(made.rows_in)} rows in, {count(made.rows_out)} kept ({share(made.rows_out, made.rows_in)}).\n"
    if made.rejected:
        yield from _reasons("rows", made.rejected, made.rows_in)
    if made.faults:
        yield "\nAttempts at a rewriting that could not be used:\n"
        yield from _reasons("attempts", made.faults, sum(made.faults.values()))
    if made.kept_by_source:
        yield "\nBy problem set:\n"
        yield from grid(("source", "in", "kept", "dropped"), _by_source(made.kept_by_source, made.rejected_by_source))


def _reasons(what: str, found: Mapping[str, int], total: int) -> Iterator[str]:
    ranked = sorted(found.items(), key=lambda item: -item[1])
    rows = ((reason, count(n), share(n, total), MEANINGS.get(reason, "")) for reason, n in ranked)
    yield from grid(("reason", what, "share", "meaning"), rows)


def _by_source(kept: Mapping[str, int], dropped: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, ...]]:
    for source in sorted(kept.keys() | dropped.keys()):
        reasons = sorted(dropped.get(source, {}).items(), key=lambda item: -item[1])
        rows = kept.get(source, 0) + sum(n for _, n in reasons)
        yield (
            source,
            count(rows),
            count(kept.get(source, 0)),
            ", ".join(f"{reason} {count(n)}" for reason, n in reasons),
        )


def distributions(facts: Facts) -> Iterator[str]:
    """The plots, each with what it shows in a sentence."""
    if not facts.plots:
        return
    yield "## Distributions\n"
    for plot in facts.plots:
        yield f"![{escaped(plot.title)}](card/{plot.file})\n"
        yield f"{escaped(plot.summary[0].upper() + plot.summary[1:])}.\n"


def examples(facts: Facts) -> Iterator[str]:
    """A few rows of the main table."""
    rows = spread(facts.folder.table(facts.main), facts.tables[facts.main])
    if rows:
        yield "## Examples\n"
    for number, row in enumerate(rows, 1):
        yield f"### Example {number}\n"
        yield from shown(facts.main, row)


def terms(facts: Facts) -> Iterator[str]:
    """Whose output the rows are; nothing for those that hold none."""
    if not facts.makers:
        return
    yield "## Terms of use\n"
    yield "These rows hold a model's output: its provider's terms bind whoever publishes them or trains on them.\n"
    yield from grid(("role", "model", "asked at", "terms"), map(_maker, facts.makers))
    if any(maker.terms is None for maker in facts.makers):
        yield (
            "\n**Before publishing, check the provider's terms, which are not stated here** (a model's setting "
            "`terms` puts them here): some forbid to share its output or to train other models on it. The paper "
            "withheld its own data for that reason."
        )


def _maker(maker: Maker) -> tuple[str, ...]:
    asked = f"{maker.host}, replayed from a record" if maker.replayed else maker.host
    return maker.role, maker.model, asked, maker.terms or "not stated"


def loading(facts: Facts) -> Iterator[str]:
    """How to read the tables elsewhere."""
    name = facts.main
    yield "## How to load\n"
    yield "`OWNER/NAME` is the repository on the hub; without it the same works in a folder with these files.\n"
    yield fenced(
        f"""from datasets import load_dataset

{name} = load_dataset("OWNER/NAME", "{name}", split="train")    # or load_dataset(".", "{name}", split="train")

import pandas

{name} = pandas.read_parquet("hf://datasets/OWNER/NAME/{name}")    # or pandas.read_parquet("{name}")""",
        "python",
    )
    yield ""
    yield fenced(
        f"SELECT * FROM 'hf://datasets/OWNER/NAME/{name}/*.parquet' LIMIT 5;    -- or '{name}/*.parquet'", "sql"
    )
    yield ""
    yield fenced(f"longthought show RUN {facts.folder.stage} {name} --n 3    # in the run's own storage", "bash")
