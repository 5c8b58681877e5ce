"""Sets of problems: where their files are, which column holds what, which rows are used."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipeline.catalogue import BENCHMARKS, TRAINING_SETS
from pipeline.config.section import RUNTIME, Positive, Section, repeated


class Columns(Section):
    """Which column of a file holds what. Null: none does."""

    problem: str = "problem"
    answer: str | None = "answer"
    """Null: the answer is in the solution."""
    solution: str | None = "solution"
    level: str | None = None
    subset: str | None = None
    """The part of the set that a row is from, such as NuminaMath's `source`."""


class Range(Section):
    """Numbers from `min` to `max`, both included; null is no limit."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _holds_numbers(self) -> "Range":
        if self.min is None and self.max is None:
            raise ValueError("a range has neither min nor max: set one")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min:g}, more than max, {self.max:g}: exchange them")
        return self


Scalar = str | bool | int | float | None


def _kind_of_condition(value: Any) -> str:
    return "range" if isinstance(value, dict | Range) else "values"


Condition = Annotated[
    Annotated[Range, Tag("range")] | Annotated[tuple[Scalar, ...], Tag("values")], Discriminator(_kind_of_condition)
]


class Source(Section):
    """One problem set."""

    known: Annotated[str | None, RUNTIME] = None
    """A ready-made set of `pipeline/catalogue.py`. It fills in what is not set here."""
    name: str
    path: str
    """A file or folder of `.parquet`, `.jsonl`, `.json` or `.csv` at any URI, packed with gzip or zstd or not; `*` stands
    for any part of a name. On the Hugging Face Hub `hf://datasets/OWNER/NAME@REVISION/data/train-*.parquet`."""
    columns: Columns = Columns()
    where: dict[str, Condition] = Field(default_factory=dict)
    """Which rows are used: for a column of the file the values that it may have, or the range they lie in. A row must
    meet all: `{source: [olympiads, aops_forum], difficulty: {min: 5}}`."""
    license: str
    """SPDX name, or "unknown"."""
    origin: str | None = None
    """Recorded with each problem. Null: the path, on the hub `OWNER/NAME@COMMIT`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_is_known(cls, values: Any) -> Any:
        return _filled_in(values, TRAINING_SETS)

    @field_validator("where", mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, where: Any) -> Any:
        if not isinstance(where, dict):
            return where
        return {name: [value] if isinstance(value, Scalar) else value for name, value in where.items()}


def _filled_in(values: Any, entries: Mapping[str, Mapping[str, Any]]) -> Any:
    """The settings that a user gave, over those of the entry they name."""
    if not isinstance(values, dict) or values.get("known") is None:
        return values
    name = values["known"]
    if not isinstance(name, str) or name not in entries:
        raise ValueError(f"known is {name!r}, which is no ready-made set: use one of {', '.join(sorted(entries))}")
    filled = {"name": name, **entries[name], **values}
    if isinstance(values.get("columns"), dict):
        filled["columns"] = {**entries[name].get("columns", {}), **values["columns"]}
    return filled


class Benchmark(Section):
    """A set of problems to evaluate on."""

    known: Annotated[str | None, RUNTIME] = None
    """A ready-made benchmark of `pipeline/catalogue.py`. It fills in what is not set here."""
    name: str
    path: str
    """As that of a source."""
    columns: Columns = Columns(solution=None)
    problems: Positive | None = None
    """The number of rows it must have."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_is_known(cls, values: Any) -> Any:
        return _filled_in(values, BENCHMARKS)


def names_of_their_own(what: str, sets: Sequence[Source | Benchmark]) -> None:
    """Refuse two sets of one name. Raises ValueError."""
    if (name := repeated([each.name for each in sets])) is not None:
        raise ValueError(f"two {what} have the name {name!r}: rows are counted by it: give each its own")


def known_benchmarks() -> tuple[Benchmark, ...]:
    """All ready-made benchmarks that are not trained on by others, too."""
    return tuple(Benchmark.model_validate({"known": name}) for name in BENCHMARKS if name not in TRAINING_SETS)
