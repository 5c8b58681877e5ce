"""Records survive every way they travel: Arrow, Parquet, pandas, `datasets`, JSON, other processes."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import REPO

from pipeline import records
from pipeline.storage import Place, read_rows, write_rows

RECORDS = [
    records.Problem, records.Rejected, records.Trace, records.Verdict, records.Example, records.PackedRow,
    records.Step, records.Generation, records.Score,
]  # fmt: skip

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(arguments)
    if typing.get_origin(hint) is list:
        return st.lists(values(arguments[0]), max_size=3)
    if arguments:  # X | None
        return st.none() | values(arguments[0])
    if dataclasses.is_dataclass(hint):
        return rows(typing.cast(type, hint))
    return {
        str: TEXTS,
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
    }[hint]


def rows(record: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(record)
    return st.builds(record, **{field.name: values(hints[field.name]) for field in dataclasses.fields(record)})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_record_survives_arrow(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(RECORDS))
    made = data.draw(st.lists(rows(record), max_size=3))
    table = records.to_table(record, made)
    assert table.schema == records.arrow_schema(record)
    assert records.from_table(record, table) == made


def sample(record: type) -> Any:
    """A row with None wherever None is allowed."""
    hints = typing.get_type_hints(record)
    plain: dict[Any, Any] = {
        str: "é ∑ \0 \n",
        int: 7,
        float: 0.5,
        bool: True,
        list[int]: [1, 2],
        list[str]: ["a", "é"],
        list[records.Message]: [records.Message("user", "hi")],
    }
    return record(
        **{
            name: typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Literal else plain.get(hint)
            for name, hint in hints.items()
        }
    )


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.mark.parametrize("record", RECORDS)
def test_every_records_parquet_opens_in_pandas_and_datasets(record: type, tmp_path: Path, hub_home: None) -> None:
    import datasets

    made = [sample(record), sample(record)]
    folder = Place(str(tmp_path / "table"))
    write_rows(folder, record, made)
    assert read_rows(folder, record) == made
    names = [field.name for field in dataclasses.fields(record)]
    assert list(pd.read_parquet(folder.uri).columns) == names
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{folder.uri}/*.parquet", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == names
    assert loaded[0] == records.to_row(made[0])


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    folder = Place(str(tmp_path / "table"))
    assert write_rows(folder, records.Example, []) == 0
    assert read_rows(folder, records.Example) == []
    assert list(pd.read_parquet(folder.uri).columns) == ["example_id", "stage", "problem_id", "trace_id", "messages"]


def test_ids_are_the_same_in_every_process() -> None:
    code = "from pipeline.records import digest; print(digest('x', 1, {'b': [1.5, None], 'a': 'é'}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPO,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert found == {records.digest("x", 1, {"a": "é", "b": [1.5, None]})}


@pytest.mark.parametrize(
    "other", ["what is  2 +\n\t2?", "WHAT IS 2 + 2?", "  What is 2 + 2? ", "What is 2 + 2？", "What\u00a0is ２ + 2?"]
)
def test_a_problems_id_ignores_case_white_space_and_compatibility_forms(other: str) -> None:
    assert records.problem_id(other) == records.problem_id("What is 2 + 2?")


@pytest.mark.parametrize(
    ("one", "other"), [("5²", "52"), ("2⁵ + x₁", "25 + x₁"), ("x", "y"), ("1 2", "12"), ("½", "1/2 ")]
)
def test_problems_that_differ_have_different_ids(one: str, other: str) -> None:
    assert records.problem_id(one) != records.problem_id(other)


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_any_string_has_an_id_and_a_form_that_arrow_takes(text: str) -> None:
    assert len(records.problem_id(text + "\ud800")) == 16
    assert pa.array([records.encodable(text + "\ud800")]).to_pylist() == [
        text.encode("utf-8", "replace").decode() + "?"
    ]
