"""What comes from storage is data: reading it runs no code of whoever wrote it. DeepSpeed's checkpoints are the one exception."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import DataError
from pipeline.storage import Place

ROOT = Path(__file__).parents[2]
LOADERS = {"load", "unsafe_load", "full_load", "Loader", "UnsafeLoader", "FullLoader"}
UNPICKLING = {"read_pickle", "cloudpickle", "unsafe_load", "full_load", "load_checkpoint"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


def loads_objects(source: str) -> list[str]:
    """The places of a source that may unpickle: imports of picklers, loading with torch or numpy, code of models."""
    found, tree = [], ast.parse(source)
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    loading = {each.asname or each.name for each in imported if each.name in {"torch", "yaml"}} | {"torch", "yaml"}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
        found += [name for name in names if name in UNPICKLERS or name.rpartition(".")[2] in {"cloudpickle", "pickle"}]
        if isinstance(node, ast.ImportFrom) and node.module in {"torch", "torch.serialization", "torch.jit", "yaml"}:
            found += [name for name in names if name.rpartition(".")[2] in LOADERS]  # under a name of their own
        if isinstance(node, ast.Attribute) and node.attr in UNPICKLING:
            found.append(node.attr)
        if isinstance(node, ast.Call):
            given = {word.arg: word.value for word in node.keywords}
            allowed = isinstance(safe := given.get("weights_only"), ast.Constant) and safe.value is True
            called = ast.unparse(node.func)
            if called.endswith(".load") and called.partition(".")[0] in loading and not allowed:
                found.append(called)
            for word in ("allow_pickle", "trust_remote_code"):
                if word in given and ast.unparse(given[word]) != "False":
                    found.append(word)
    return found


def test_the_source_unpickles_nothing_and_runs_no_code_of_models() -> None:
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "ray_jobs").rglob("*.py")]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): places for path in files if (places := loads_objects(path.read_text()))}
    assert found == {"pipeline/train/checkpoints.py": ["load_checkpoint"]}, (
        "DeepSpeed's own, of which the README warns, and nothing else"
    )


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from ray import cloudpickle",
        "import ray.cloudpickle as c",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "import torch as t; t.load(path, weights_only=False)",
        "from torch import load",
        "torch.serialization.load(path)",
        "torch.jit.load(path)",
        "yaml.unsafe_load(file)",
        "yaml.load(file, Loader=yaml.Loader)",
        "numpy.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=settings.trust)",
        "pandas.read_pickle(path)",
    ],
)
def test_a_planted_line_that_unpickles_is_found(line: str) -> None:
    assert loads_objects(line)
    assert not loads_objects(
        "torch.load(path, weights_only=True); json.load(file); np.load(path); yaml.safe_load(text)"
    )


@pytest.mark.parametrize("nested", [False, True])
def test_a_table_that_hides_a_pickle_is_refused_before_it_is_unpickled(tmp_path: Path, nested: bool) -> None:
    """As Ray Data would write it. In a process of its own: with ray.data imported, to look at such a value unpickles it."""
    pickled = pa.array([pickle.dumps(Bomb(tmp_path / "exploded"))], pa.large_binary())
    field = pa.field("problem", pickled.type, metadata={"ARROW:extension:name": storage.tables.PICKLED})
    column = pa.StructArray.from_arrays([pickled], fields=[field]) if nested else pickled
    outer = pa.field("problem", column.type) if nested else field
    pq.write_table(pa.table([column], schema=pa.schema([outer])), tmp_path / "table.parquet")

    place = Place(str(tmp_path / "table.parquet"))
    for read in (lambda: list(storage.iter_dicts(place)), lambda: list(storage.batches(place, ["problem"], 8))):
        with pytest.raises(DataError, match=r"'problem'.*holds pickled objects"):
            read()

    code = (
        "import sys, ray.data; from pipeline import storage; from pipeline.errors import DataError\n"
        "place = storage.Place(sys.argv[1]); refused = 0\n"
        "for read in (storage.iter_dicts(place), storage.batches(place, ['problem'], 8)):\n"
        "    try: [row if isinstance(row, dict) else row.to_pylist() for row in read]\n"
        "    except DataError: refused += 1\n"
        "print(refused)"
    )
    done = subprocess.run([sys.executable, "-c", code, place.uri], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "2"
    assert not (tmp_path / "exploded").exists()
