"""What every section of the settings is: frozen, without unknown keys, without secrets.

Fields marked `RUNTIME` say how or where a stage runs (workers, URLs, time-outs); they may change between a run and its
resumption.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.secrecy import find_secret

RUNTIME = "runtime"

Positive = Annotated[int, Field(gt=0)]
RuntimePositive = Annotated[int, Field(gt=0), RUNTIME]
RuntimeSeconds = Annotated[float, Field(gt=0), RUNTIME]
RuntimeStr = Annotated[str, RUNTIME]
RuntimeCpus = Annotated[float, Field(gt=0), RUNTIME]


def repeated(values: Sequence[str]) -> str | None:
    """The first one that is there more than once."""
    return next((value for value in values if values.count(value) > 1), None)


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if (value := repeated(values)) is not None:
        raise ValueError(f"holds {value!r} more than once: name it once")
    return values


DISTINCT = AfterValidator(_distinct)


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _holds_no_secret(self) -> "Section":
        for name, value in self:
            # The names of our own settings tell of no secret (`token_limit_field`); those inside of free ones may.
            inside = find_secret(value) if isinstance(value, dict) else find_secret([value])
            if inside is not None:
                where = f"{name}.{inside}" if isinstance(value, dict) else name
                raise ValueError(
                    f"{where} holds a secret, and configs are stored and published: set it in the environment of the nodes"
                )
        return self
