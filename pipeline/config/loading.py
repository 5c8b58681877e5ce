"""From a YAML file and `--set section.key=value` to a `Config`; a mistake in one line.

In: a path and overrides. Out: `Config`, or a ConfigError that names the key, the value and the mending.
"""

import difflib
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.section import Section
from pipeline.config.settings import Config
from pipeline.errors import ConfigError


def load(path: str, overrides: Iterable[str] = ()) -> Config:
    """Read a config file and apply `section.key=value` overrides, whose values are YAML.

    Raises ConfigError naming the key, the value and the mending.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"config file {path!r} does not exist: give an existing YAML file, such as configs/demo.yaml")
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path!r} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path!r} holds no sections: see configs/demo.yaml for an example")
    for override in overrides:
        _apply(override, tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _apply(override: str, tree: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not of the form section.key=value")
    *parents, last = key.split(".")
    node = tree
    for name in parents:
        child = node.setdefault(name, {}) if isinstance(node, dict) else None
        if isinstance(child, list) and name != parents[-1]:
            raise ConfigError(f"--set {key}: {name!r} is a list: set it whole")
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: {name!r} is no section of the config")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}: the value {text!r} is no valid YAML: quote it") from None


UNREPEATED = {"api_key_env", "env", "engine", "extra"}
"""Where a user may have put a secret by mistake: what stands there is not repeated in a message."""


def _explain(error: ValidationError) -> str:
    """The first mistake of a config, in one line."""
    errors = error.errors()
    # A misspelt key that must be there is missing too: the misspelling says more.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown config key {key!r}: {hint}"
    if first["type"] == "missing":
        return f"config key {key!r} is missing: add it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"config section {key or 'top level'!r}: {message}"
    if not UNREPEATED.isdisjoint(first["loc"]):
        return f"config key {key!r}: {message[0].lower() + message[1:]} (its value is not repeated here: it may be a secret)"
    return f"config key {key!r} is {first['input']!r}: {message[0].lower() + message[1:]}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The names of the settings in the section at a location of the tree."""
    section: type[Section] = Config
    for part in location:
        if part not in section.model_fields:  # a place in a list, or a key or a kind of what lies under `where`
            continue
        section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[Section]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(found for arg in typing.get_args(annotation) if (found := _section_in_or_none(arg)))


def _section_in_or_none(annotation: Any) -> type[Section] | None:
    try:
        return _section_in(annotation)
    except StopIteration:
        return None


def as_yaml(config: Config) -> str:
    """The whole config as YAML."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    return text
