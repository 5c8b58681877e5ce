"""The stages of a run: their folders, their manifests, and the promise that no row vanishes.

In: a config. Out: `StageFolder`s with their manifests, and `StageRun`, one execution of a stage. A manifest is
written last: a stage is complete when it exists.
"""

import dataclasses
import json
import os
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import STAGES, Config, as_yaml, fingerprint
from pipeline.errors import ConfigError, DataError, InvariantError
from pipeline.records import Rejected
from pipeline.storage import Place, confirm, write_rows


@dataclass(frozen=True)
class Manifest:
    """What a complete stage did. `artifact` is new each time it is made; `inputs` are those of its inputs.

    `settings` is the stage's config fingerprint; `rejected` counts by reason; `seconds` and `started`
    (UNIX time) are wall time; `ray_actors` counts the actors that worked, by class, `lost`
    the `nodes` and `actors` that went away before their work was done, `spilled_bytes` what did not fit in Ray's memory; `kept_by_source`
    and `rejected_by_source` count rows by the source they come from; `faults` counts failed attempts at a rewriting by
    reason, `agreement` verdicts of grader and judge.
    """

    stage: str
    artifact: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    tables: dict[str, int]
    requests: int = 0
    stored_replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    ray_actors: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    spilled_bytes: int = 0
    kept_by_source: dict[str, int] = field(default_factory=dict)
    rejected_by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, int] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0
    git_revision: str = ""


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage of a run: its tables and its manifest."""

    root: Place
    stage: str

    @property
    def place(self) -> Place:
        """`{root}/{number}_{stage}`, so that a bucket lists in flow order."""
        return self.root / f"{STAGES.index(self.stage) + 1}_{self.stage}"

    def table(self, name: str) -> Place:
        """The folder of a table's Parquet files."""
        return self.place / name

    def manifest(self) -> Manifest | None:
        """The manifest, or None where the stage is not complete."""
        place = self.place / "manifest.json"
        if not place.exists():
            return None
        values = json.loads(place.read())
        return Manifest(**{f.name: values[f.name] for f in dataclasses.fields(Manifest) if f.name in values})

    def interrupt(self) -> None:
        """Leave word, in `interrupted.json`, that the stage was asked to end before its end; not where it is complete."""
        word = {"stage": self.stage, "interrupted": time.time(), "git_revision": git_revision()}
        with suppress(DataError):
            if self.manifest() is None:
                self._interrupted.write(json.dumps(word, indent=1).encode())

    def resume(self) -> None:
        """The stage is worked on again."""
        self._interrupted.delete()

    @property
    def _interrupted(self) -> Place:
        return self.place / "interrupted.json"

    def require(self) -> Manifest:
        """The manifest of a stage that must be complete."""
        manifest = self.manifest()
        if manifest is None:
            raise DataError(f"{self.place.uri!r} is not complete: run `longthought {self.stage}` first")
        return manifest


def model_place(config: Config, name: str) -> str:
    """Where a model of the run lies (`base`, `stage1`, `stage2`): a folder's URI, or the hub name of a base that has one.

    The base is used in place, unless it is a GGUF file, which `train` unpacks. Local paths are absolute.
    """
    if name == "base" and not config.train.model.endswith(".gguf"):
        place = Place(config.train.model, config.storage.endpoint)
        return place.path if place.is_local and place.exists() else place.uri
    place = StageFolder(root_of(config), "train").place / "models" / name
    return place.path if place.is_local else place.uri


class StageRun:
    """One execution of a stage: counts what happens, and writes the manifest last.

    `complete` is set where the stage was made before with the same settings and inputs: nothing is to
    do then. Where they differ, the constructor raises ConfigError naming what changed.
    """

    def __init__(self, config: Config, stage: str, inputs: Iterable[str] = (), files: Iterable[Place] = ()) -> None:
        self.root = root_of(config)
        self.folder = StageFolder(self.root, stage)
        self.stage = stage
        self.settings: dict[str, Any] = json.loads(json.dumps(fingerprint(config, stage)))
        self.inputs = {name: StageFolder(self.root, name).require().artifact for name in inputs}
        self.inputs.update({file.uri: file.content_hash() for file in files})
        self.rejected: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self._started = time.time()
        self.complete = self.folder.manifest()
        if self.complete:
            self._refuse_changes(self.complete)
        else:
            (self.root / "config.yaml").write(as_yaml(config).encode())
            self.folder.resume()

    def _refuse_changes(self, made: Manifest) -> None:
        manifest = self.folder.place / "manifest.json"
        mend = f"use another storage.root, or delete {manifest.uri} to make the stage again (paid answers are kept)"
        for key in sorted(self.settings.keys() | made.settings.keys()):
            old, new = made.settings.get(key, "not set"), self.settings.get(key, "not set")
            if old != new:
                raise ConfigError(f"{self.folder.place.name} was made with {key} = {old!r}, now it is {new!r}: {mend}")
        for name in sorted(self.inputs.keys() | made.inputs.keys()):
            if made.inputs.get(name) != self.inputs.get(name):
                raise ConfigError(f"{self.folder.place.name} was made from another content of {name}: {mend}")

    def reject(self, rows: Iterable[Rejected]) -> None:
        """Write the dropped rows and count them by reason."""
        rows = sorted(rows, key=lambda row: (row.reason, row.row_id))
        write_rows(self.folder.table("rejected"), Rejected, rows)
        self.rejected.update(row.reason for row in rows)

    def finish(self, *, rows_in: int, rows_out: int, tables: Mapping[str, int], **figures: Any) -> Manifest:
        """Check that no row vanished, then write the manifest."""
        dropped = self.rejected.total()
        if self.folder.table("rejected").exists():
            tables = {**tables, "rejected": dropped}
        if rows_in != rows_out + dropped:
            raise InvariantError(f"{self.stage}: {rows_in} rows in, but {rows_out} out and {dropped} rejected")
        manifest = Manifest(
            stage=self.stage,
            artifact=uuid.uuid4().hex[:16],
            settings=self.settings,
            inputs=self.inputs,
            rows_in=rows_in,
            rows_out=rows_out,
            rejected=dict(sorted(self.rejected.items())),
            tables=dict(tables),
            started=self._started,
            seconds=round(time.time() - self._started, 1),
            git_revision=git_revision(),
            **figures,
        )
        confirm(self.root)
        self.folder.resume()  # a run that lost its hold to this one may have left word since
        (self.folder.place / "manifest.json").write(json.dumps(dataclasses.asdict(manifest), indent=1).encode())
        return manifest


def root_of(config: Config) -> Place:
    """The root of a run; a local one as an absolute path, for workers have working folders of their own."""
    place = Place(config.storage.root, config.storage.endpoint)
    return Place(place.path, place.endpoint) if place.is_local else place


def git_revision() -> str:
    """The commit of the code, with `+` where it was changed since; where that is no checkout what LONGTHOUGHT_REVISION says."""
    git = ["git", "-c", "safe.directory=*", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        run = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True)
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("LONGTHOUGHT_REVISION", "")
