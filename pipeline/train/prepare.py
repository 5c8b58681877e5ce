"""All that comes before the first step: the base model as a folder, its template checked, the examples packed.

In: the examples of `reformat` and `verify`, the model the config names. Out: `models/base` where the model
came as a GGUF file, the tables `packed_stage1` and `packed_stage2`, and what was left out and why.
Refuses what could only fail later: too long sequences, unfit templates, empty training sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import Config, Optimization, Train
from pipeline.errors import DataError
from pipeline.records import Example, PackedRow, Rejected, RejectReason, TrainStage, digest, to_json
from pipeline.stage import StageFolder
from pipeline.storage import Place, read_rows, write_rows
from pipeline.train import data, marker, model

EXAMPLES_OF: dict[TrainStage, str] = {"stage1": "reformat", "stage2": "verify"}
"""Which stage of the run made the examples of which stage of training."""


@dataclass(frozen=True)
class Prepared:
    """What was packed: examples in all, those left out, rows of each table, optimizer steps of each stage."""

    examples: int
    rejected: list[Rejected]
    tables: dict[str, int]
    steps: dict[TrainStage, int]


def check(config: Config) -> None:
    """Refuse a base model that cannot be trained or served so, by its tokenizer and shape alone: before anything is paid.

    Raises DataError or ConfigError.
    """
    settings, serve = config.train, config.serve
    source = model.find(settings.model, config.storage.endpoint, weights=False)
    shape = _checked(source, settings)[1]
    data.check_positions("serve.max_model_len", serve.max_model_len, shape, settings.model)


def _checked(source: model.Source, settings: Train) -> tuple[Any, Any]:
    """The tokenizer and the config of a model that can be trained."""
    tokenizer, shape = model.load_tokenizer(source), model.load_config(source)
    data.check_positions("train.max_length", settings.max_length, shape, settings.model)
    data.check_template(tokenizer, shape.vocab_size, settings.model)
    return tokenizer, shape


def prepare(settings: Train, root: Place) -> Prepared:
    """Write the base model and the packed tables. Deterministic: a repetition writes the same."""
    folder = StageFolder(root, "train").place
    source = _base(settings, folder / "models" / "base", root.endpoint)
    tokenizer, _ = _checked(source, settings)

    count, rejected, tables, steps = 0, [], {}, {}
    for stage, made_by in EXAMPLES_OF.items():
        optimization: Optimization = getattr(settings, stage)
        examples = read_rows(StageFolder(root, made_by).table("examples"), Example)
        chosen, dropped = _choose(examples, optimization)
        tokenized = [data.tokenize(example, tokenizer) for example in chosen]
        fitting, too_long = _fit(chosen, tokenized, settings)
        if not fitting:
            raise DataError(
                f"{stage} has nothing to train on: of {len(examples)} examples of {made_by}, {len(too_long)} are longer "
                f"than train.max_length = {settings.max_length}: raise it, or see why {made_by} made so few"
            )
        rows = data.pack(fitting, settings.max_length)
        tables[f"packed_{stage}"] = write_rows(folder / f"packed_{stage}", PackedRow, rows)
        steps[stage] = data.steps_of(len(rows), rows_per_step=optimization.rows_per_step, epochs=optimization.epochs)
        count += len(examples)
        rejected += dropped + too_long
    return Prepared(count, rejected, tables, steps)


def _base(settings: Train, target: Place, endpoint: str | None) -> model.Source:
    """The base model as a folder: a GGUF file is unpacked once, anything else is used in place."""
    source = model.find(settings.model, endpoint)
    if source.gguf_file is None:
        return source
    recipe = digest(settings.model)
    made = marker.read(target)
    if made is None or made.recipe != recipe:
        unpacked = model.load_model(source, torch.bfloat16)
        model.export(target, unpacked, model.load_tokenizer(source), marker.Made(recipe, []))
    return model.find(target.uri, endpoint)


def _choose(examples: Sequence[Example], optimization: Optimization) -> tuple[list[Example], list[Rejected]]:
    """The first `max_examples` in the order of their ids, and the others."""
    ordered = sorted(examples, key=lambda example: example.example_id)
    limit = optimization.max_examples or len(ordered)
    detail = f"beyond max_examples = {limit}"
    return ordered[:limit], [_rejected(example, "not_selected", detail) for example in ordered[limit:]]


def _fit(
    examples: Sequence[Example], tokenized: Sequence[data.Tokenized], settings: Train
) -> tuple[list[data.Tokenized], list[Rejected]]:
    """The examples that fit a sequence, and the others: never cut."""
    fitting, too_long = [], []
    for example, tokens in zip(examples, tokenized, strict=True):
        length = len(tokens.ids)
        if length <= settings.max_length:
            fitting.append(tokens)
        elif settings.on_too_long == "refuse":
            raise DataError(
                f"example {example.example_id!r} of {example.stage} has {length} tokens, train.max_length is "
                f"{settings.max_length}: raise it, or set train.on_too_long to drop"
            )
        else:
            detail = f"{length} tokens, train.max_length is {settings.max_length}"
            too_long.append(_rejected(example, "too_long", detail))
    return fitting, too_long


def _rejected(example: Example, reason: RejectReason, detail: str) -> Rejected:
    return Rejected(example.example_id, "train", reason, detail, to_json(example))
