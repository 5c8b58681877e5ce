"""Models in and out: finding what the config names, loading it, exporting Hugging Face folders.

In: `train.model` (a folder at any URI, a hub name, a `.gguf` file, `package://name/file.gguf`).
Out: tokenizers and models in memory, and exported folders that end with a marker: a folder without it
is half-written. Where exported models lie is left to `stage.model_place`.
"""

import importlib.util
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import list_repo_files, snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from pipeline import hub, records, storage
from pipeline.config import Rope
from pipeline.errors import DataError
from pipeline.storage import Place
from pipeline.train import conversations, marker
from pipeline.train.marker import Made

MEND = "give train.model a Hugging Face model folder, a hub name, a .gguf file or package://name/file.gguf"

SHARD_SIZE = "5GB"
"""Of a file of an exported model's weights."""
WEIGHTS = ".safetensors"
DESCRIPTION = (".json", ".jinja", ".txt", ".model")
"""The files of a model's tokenizer and shape."""


@dataclass(frozen=True)
class Source:
    """A model that transformers can open: a local folder or hub name, and the GGUF file in that folder.

    `name` is what the config calls it, for messages.
    """

    name: str
    location: str
    gguf_file: str | None = None


def cache_folder() -> Path:
    """Where this node keeps copies of remote models."""
    return Path(tempfile.gettempdir()) / "longthought" / "models"


def find(name: str, endpoint: str | None = None, *, weights: bool = True) -> Source:
    """The model that the config names, fetched to this node where it is remote; with or without its weights.

    Raises DataError where there is no model.
    """
    if name.startswith("package://"):
        file = _file_in_package(name)
        return Source(name, str(file.parent), file.name)
    place = Place(name, endpoint)
    if name.endswith(".gguf"):
        file = _local_file(place)
        return Source(name, str(file.parent), file.name)
    if not place.is_local or place.exists():
        return Source(name, str(_folder(place, weights)))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return Source(name, name)
    raise DataError(f"train.model is {name!r}, which does not exist: {MEND}")


def fetched(source: Source) -> Source:
    """The same with its files on this node, where it is a name of the hub."""
    if source.location != source.name or Path(source.location).exists():
        return source
    with _Explained(source, "model"):
        folder = snapshot_download(source.name, allow_patterns=[f"*{end}" for end in (".safetensors", *DESCRIPTION)])
    return Source(source.name, folder)


def require_weights(source: Source) -> None:
    """Refuse a model of the hub without safetensors, as `find` does other ones. Where the hub does not tell, loading will.

    Raises DataError.
    """
    if source.location != source.name or Path(source.location).exists():
        return
    with suppress(ValueError, *hub.failures()):  # the first: no name of the hub's
        _require_weights(source.name, list_repo_files(source.name))


def _file_in_package(name: str) -> Path:
    package, _, file = name.removeprefix("package://").partition("/")
    # The spec alone: importing the package would run it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"train.model is {name!r}, but no package {package!r} is installed: install it, or {MEND}")
    path = Path(spec.submodule_search_locations[0]) / file
    if not file.endswith(".gguf") or not path.is_file():
        raise DataError(f"train.model is {name!r}, but package {package!r} holds no such .gguf file: {MEND}")
    return path


def _local_file(place: Place) -> Path:
    if not place.exists() or place.is_folder():
        raise DataError(f"train.model is {place.uri!r}, which is no file: {MEND}")
    if place.is_local:
        return Path(place.path)
    copy = cache_folder() / records.digest(place.uri) / place.name
    if not copy.exists():
        Place(str(copy)).write(place.read())
    return copy


def _folder(place: Place, weights: bool) -> Path:
    names = {file.name for file in place.files()}
    if "config.json" not in names:
        raise DataError(f"train.model is {place.uri!r}, which holds no config.json, so it is no model folder: {MEND}")
    _require_weights(place.uri, names)
    return (
        storage.fetch(place, cache_folder()) if weights else storage.fetch(place, cache_folder() / "light", DESCRIPTION)
    )


def _require_weights(name: str, files: Iterable[str]) -> None:
    if not any(file.endswith(WEIGHTS) for file in files):
        raise DataError(
            f"train.model is {name!r}, which holds no weights (*.safetensors; pickles, *.bin, are not read): {MEND}"
        )


def load_tokenizer(source: Source) -> Any:
    """The tokenizer with its chat template."""
    with _Explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.location, gguf_file=source.gguf_file)


def load_config(source: Source, rope: Rope | None = None) -> Any:
    """The model's shape, without its weights; with more positions where `rope` says so."""
    with _Explained(source, "config"):
        config = AutoConfig.from_pretrained(source.location, gguf_file=source.gguf_file)
    if rope is not None:
        text = config.get_text_config()
        text.max_position_embeddings = rope.positions
        kept = {name: value for name, value in rope_of(text).items() if name == "partial_rotary_factor"}
        text.rope_parameters = {"rope_type": "default", "rope_theta": rope.theta, **kept}
    return config


def rope_of(text: Any) -> Mapping[str, Any]:
    """The settings of a config's rotary embedding; none where it has none."""
    return getattr(text, "rope_parameters", None) or {}


def load_model(source: Source, dtype: torch.dtype, rope: Rope | None = None) -> Any:
    """The model in memory, ready to be trained."""
    transformers_logging.disable_progress_bar()
    kind = (
        {"gguf_file": source.gguf_file, "quantization_config": GgufConfig(gguf_file=source.gguf_file, dequantize=True)}
        if source.gguf_file
        else {"use_safetensors": True}
    )
    config = load_config(source, rope)
    with _Explained(source, "model"):
        model = AutoModelForCausalLM.from_pretrained(
            source.location, config=config, dtype=dtype, attn_implementation="sdpa", **kind
        )
    model.config.use_cache = False
    return model


class _Explained:
    """Turns whatever transformers makes of a bad folder into one line."""

    def __init__(self, source: Source, part: str) -> None:
        self.source, self.part = source, part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # OSError: missing files, unknown hub names; ValueError, KeyError: unknown types; SafetensorError: cut files; RuntimeError:
        # weights of other sizes than the config's.
        if isinstance(error, OSError | ValueError | KeyError | SafetensorError | RuntimeError):
            first = " ".join(str(error).split())[:200]
            message = f"train.model is {self.source.name!r}, whose {self.part} cannot be loaded ({first}): {MEND}"
            raise DataError(message) from error


def _end_of_turn_ends(generation: Any, token: int) -> None:
    """Whoever generates must stop at the token that training ends a turn with: a base model's own list may lack it.

    Settings of sampling without sampling, which some models come with, cannot be saved.
    """
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
    known = generation.eos_token_id
    others = [] if known is None else known if isinstance(known, list) else [known]
    if token not in others:
        generation.eos_token_id = [token, *others] if others else token


def export(
    folder: Place,
    model: Any,
    tokenizer: Any,
    made: Made,
    state_dict: Mapping[str, torch.Tensor] | None = None,
    card: str | None = None,
) -> None:
    """Write a folder that transformers and vLLM load: safetensors, tokenizer, template, generation config.

    `state_dict` replaces the model's own weights, where they are partitioned. The marker comes last.
    `card` is the text of its README.md.
    """
    marker.remove(folder)
    folder.delete()
    model.config.use_cache = True
    _end_of_turn_ends(model.generation_config, tokenizer.eos_token_id)
    with storage.filled(folder) as local:
        try:
            model.save_pretrained(local, state_dict=state_dict, max_shard_size=SHARD_SIZE)
            tokenizer.save_pretrained(local)
            if card is not None:
                (local / "README.md").write_text(card)
        except (OSError, SafetensorError) as error:
            first = " ".join(str(error).split())[:200]
            raise DataError(
                f"the model cannot be written to {str(local)!r} ({first}): free some space and run again"
            ) from error
    marker.write(folder, replace(made, check_ids=conversations.check_ids(tokenizer)))
