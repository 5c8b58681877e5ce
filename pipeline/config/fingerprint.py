"""The settings that decide what a stage produces: what a finished stage is compared by.

In: a config. Out: for each stage its settings, flat.
"""

from typing import Any

from pydantic_core import to_jsonable_python

from pipeline.config.section import RUNTIME, Section
from pipeline.config.settings import Config

DECIDING_SECTIONS: dict[str, tuple[str, ...]] = {
    "curate": ("curate", "evaluate.benchmarks"),
    "reformat": ("rewriter", "reformat"),
    "distill": ("teacher", "distill"),
    "verify": ("verify",),
    "train": ("train",),
    "serve": ("serve",),
    "evaluate": ("evaluate", "serve"),
    "report": ("report",),
}
"""The sections that decide what a stage produces. Its inputs count beside them, by their manifests."""


def fingerprint(config: Config, stage: str) -> dict[str, Any]:
    """The settings that decide what a stage produces, flat: {"distill.keep": 1, ...}."""
    flat: dict[str, Any] = {}
    for section in DECIDING_SECTIONS[stage]:
        node: Any = config
        for name in section.split("."):
            node = getattr(node, name)
        _flatten(node, section, flat)
    return flat


def _flatten(node: Any, prefix: str, into: dict[str, Any]) -> None:
    if isinstance(node, Section):
        for name, field in type(node).model_fields.items():
            if RUNTIME not in field.metadata:
                _flatten(getattr(node, name), f"{prefix}.{name}", into)
    elif isinstance(node, tuple) and any(isinstance(item, Section) for item in node):
        for index, item in enumerate(node):
            _flatten(item, f"{prefix}.{index}", into)
    else:
        into[prefix] = to_jsonable_python(node)
