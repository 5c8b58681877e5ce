"""All that comes before the first step: the base model as a folder, its template checked, the examples packed.

In: the examples of `reformat` and `verify`, the model the config names. Out: `models/base` where the model came as a GGUF
file, packed rows, and what was left out and why. Refuses what could only fail later: too long sequences, unfit templates,
empty training sets. `shards` cuts a table of examples into parts that can be packed apart.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import Config, Optimization, Train
from pipeline.errors import DataError
from pipeline.plan import shapes
from pipeline.plan.shapes import Shape
from pipeline.records import Example, PackedRow, Rejected, RejectReason, TrainStage, digest, to_json
from pipeline.storage import Place, read_columns
from pipeline.train import attention, conversations, marker, model, packing

EXAMPLES_OF: dict[TrainStage, str] = {"stage1": "reformat", "stage2": "verify"}
"""Which stage of the run made the examples of which stage of training."""
SHARD_ROWS = 2048
"""Examples that are packed together: enough for full rows, few enough for memory."""


def check(config: Config) -> None:
    """Refuse a base model that cannot be trained or served so, by its tokenizer and shape alone: before anything is paid.

    Raises DataError or ConfigError.
    """
    settings, serve = config.train, config.serve
    source = model.find(settings.model, config.storage.endpoint, weights=False)
    model.require_weights(source)
    _, shape = checked(source, settings)
    shapes.check_positions("serve.max_model_len", serve.max_model_len, shape.positions, settings.model)


def checked(source: model.Source, settings: Train) -> tuple[Any, Shape]:
    """The tokenizer and the shape of a model that can be trained."""
    tokenizer, config = model.load_tokenizer(source), model.load_config(source, settings.rope)
    shape = shapes.of_config(config)
    attention.check(config, settings.model, max(settings.stage1.max_length, settings.stage2.max_length))
    for name, stage in (("stage1", settings.stage1), ("stage2", settings.stage2)):
        shapes.check_positions(f"train.{name}.max_length", stage.max_length, shape.positions, settings.model)
    conversations.check_template(tokenizer, shape.vocabulary, settings.model)
    return tokenizer, shape


def base(settings: Train, target: Place, endpoint: str | None) -> None:
    """Have the base model as a folder: a GGUF file is unpacked once, anything else is used in place. It is checked."""
    source = model.find(settings.model, endpoint, weights=False)
    if source.gguf_file is not None:
        recipe = digest(settings.model)
        made = marker.read(target)
        if made is None or made.recipe != recipe:
            unpacked = model.load_model(source, torch.bfloat16)
            model.export(target, unpacked, model.load_tokenizer(source), marker.Made(recipe, []))
        source = model.find(target.uri, endpoint, weights=False)
    checked(source, settings)


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `stop` of a table of examples."""

    index: int
    start: int
    stop: int


def shards(examples: Place, optimization: Optimization) -> tuple[list[Shard], frozenset[str] | None]:
    """The parts of a table, and the ids of the examples that are used: the first ones in their order; None for all."""
    ids = read_columns(examples, ["example_id"])["example_id"].to_pylist()
    cuts = range(0, len(ids), SHARD_ROWS)
    parts = [Shard(index, start, min(start + SHARD_ROWS, len(ids))) for index, start in enumerate(cuts)]
    limit = optimization.max_examples
    return parts, None if limit is None or limit >= len(ids) else frozenset(sorted(ids)[:limit])


def pack_shard(
    examples: Sequence[Example],
    tokenizer: Any,
    settings: Train,
    optimization: Optimization,
    chosen: Collection[str] | None,
) -> tuple[list[PackedRow], list[Rejected]]:
    """The packed rows of some examples, and what is left out. Raises DataError where nothing may be."""
    fitting: list[conversations.Tokenized] = []
    rejected: list[Rejected] = []
    for example in examples:
        if chosen is not None and example.example_id not in chosen:
            rejected.append(_rejected(example, "not_selected", f"beyond max_examples = {len(chosen)}"))
            continue
        tokens = conversations.tokenize(example, tokenizer)
        length, most = len(tokens.ids), optimization.max_length
        if length <= most:
            fitting.append(tokens)
        elif settings.on_too_long == "refuse":
            raise DataError(
                f"example {example.example_id!r} of {example.stage} has {length} tokens, train.{example.stage}.max_length is "
                f"{most}: raise it, or set train.on_too_long to drop"
            )
        else:
            rejected.append(_rejected(example, "too_long", f"{length} tokens, max_length is {most}"))
    return packing.pack(fitting, optimization.max_length), rejected


def _rejected(example: Example, reason: RejectReason, detail: str) -> Rejected:
    return Rejected(example.example_id, "train", reason, detail, to_json(example))
