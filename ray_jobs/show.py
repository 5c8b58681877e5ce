"""`longthought show`: rows of any table of a run, readable."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.config import STAGES, endpoint_from_environment
from pipeline.errors import ConfigError, DataError
from pipeline.stage import StageFolder
from pipeline.storage import Place, iter_dicts

LONGEST_LIST = 24
"""Of a list of token ids, say, only so many are shown."""


def show(root: str, stage: str, table: str | None, where: Sequence[str], count: int, endpoint: str | None) -> None:
    """Print rows of a table; without a table, the names of the stage's tables."""
    if stage not in STAGES:
        raise ConfigError(f"unknown stage {stage!r}: one of {', '.join(STAGES)}")
    folder = StageFolder(Place(root, endpoint or endpoint_from_environment()), stage)
    names = tables_of(folder)
    if not names:
        raise DataError(f"{folder.place.uri!r} holds no tables: check the root, or run the stage")
    if table is None:
        print("\n".join(names))
        return
    if table not in names:
        raise DataError(f"{folder.place.uri!r} has no table {table!r}: it has {', '.join(names)}")
    console = Console(highlight=False)
    rows = list(islice(_matching(folder.table(table), where), count))
    for row in rows:
        _print(console, row)
    if not rows:
        print(f"no row of {folder.table(table).uri} matches")


def tables_of(folder: StageFolder) -> list[str]:
    """The stage's tables, by name."""
    prefix = folder.place.path.rstrip("/") + "/"
    inside = (file.path.removeprefix(prefix) for file in folder.place.files(".parquet"))
    return sorted({path.partition("/")[0] for path in inside if "/" in path})


def _matching(table: Place, where: Sequence[str]) -> Iterator[dict[str, Any]]:
    wanted = []
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition!r} is not of the form COLUMN=VALUE")
        wanted.append((name, value))
    for row in iter_dicts(table):
        for name, _ in wanted:
            if name not in row:
                raise ConfigError(f"--where: {table.uri} has no column {name!r}: it has {', '.join(row)}")
        if all(str(row[name]) == value for name, value in wanted):
            yield row


def _print(console: Console, row: dict[str, Any]) -> None:
    console.rule(style="dim")
    for name, value in row.items():
        label = Text(f"{name:>18}  ", style="bold cyan")
        console.print(label.append(_text(value).replace("\n", "\n" + " " * 20), style="default"), soft_wrap=True)


def _text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict) and {"role", "content"} <= set(value[0]):
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in value)
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"{value[:LONGEST_LIST]} ... {len(value)} in all"
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.dumps(json.loads(value), indent=1, ensure_ascii=False)
        except ValueError:
            return value
    return "-" if value is None else str(value)
