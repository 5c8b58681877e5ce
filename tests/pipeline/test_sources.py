"""Problem sets as people have them: three formats, their own columns, broken lines, foreign encodings."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import sources
from pipeline.config import Benchmark, Columns, Source
from pipeline.errors import DataError
from pipeline.records import problem_id
from pipeline.sources import RawRow
from pipeline.storage import Place

ROWS = [
    {"problem": "What is 1 + 1?", "answer": "2", "solution": "One and one."},
    {"problem": "Écrire ½,\n\"twice\"; 'once'", "answer": "1", "solution": "x" * 200_000},
]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith(".csv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())  # as Excel writes it
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def source(path: Path | str, **columns: Any) -> Source:
    return Source(name="set", path=str(path), license="MIT", columns=Columns(**columns))


def read(given: Source, endpoint: str | None = None) -> list[RawRow]:
    return [row for file in sources.files_of(given, endpoint) for row in sources.read(file, given.columns)]


@pytest.mark.parametrize("name", ["set.jsonl", "set.csv", "set.parquet"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = read(source(write(tmp_path, name, ROWS)))
    assert [(row.problem, row.answer, row.solution) for row in rows] == [tuple(row.values()) for row in ROWS]
    assert [row.place.rpartition("/")[2] for row in rows] in ([f"{name}:1", f"{name}:2"],)


def test_a_folder_gives_the_rows_of_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.jsonl", "c.csv"):
        write(tmp_path, name, ROWS[:1])
    (tmp_path / "README.md").write_text("no rows")
    assert [Path(row.place).name for row in read(source(tmp_path))] == ["a.jsonl:1", "b.parquet:1", "c.csv:1"]


def test_a_source_lies_on_s3_too(s3_endpoint: str, tmp_path: Path) -> None:
    place = Place(f"s3://bucket/{tmp_path.name}/set", s3_endpoint)
    for name in ("a.jsonl", "b.parquet"):
        (place / name).write(write(tmp_path, name, ROWS).read_bytes())
    assert len(read(source(place.uri), s3_endpoint)) == 4
    assert len(read(source(f"{place.uri}/b.parquet"), s3_endpoint)) == 2


def test_columns_are_mapped_and_numbers_become_text(tmp_path: Path) -> None:
    path = write(tmp_path, "set.jsonl", [{"q": " 1 + 1? ", "a": 2, "work": None, "difficulty": 5}])
    (row,) = read(source(path, problem="q", answer="a", solution="work", level="difficulty"))
    assert (row.problem, row.answer, row.solution, row.level) == ("1 + 1?", "2", None, "5")


def test_an_answer_column_may_be_absent_on_request(tmp_path: Path) -> None:
    (row,) = read(source(write(tmp_path, "set.jsonl", [{"problem": "p"}]), answer=None))
    assert (row.answer, row.solution) == (None, None)


def test_a_broken_line_is_a_row_with_its_line_number_and_its_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    lines = [
        json.dumps(ROWS[0]),
        "",
        '{"problem": "cut',
        "[1]",
        '"text"',
        "\udcff\udcfe",
        "[" * 99_999,
        json.dumps(ROWS[0]),
    ]
    path.write_bytes("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    rows = read(source(path))
    assert [int(row.place.rpartition(":")[2]) for row in rows] == [1, 3, 4, 5, 6, 7, 8]
    assert [row.error is None for row in rows] == [True, False, False, False, False, False, True]
    assert all(row.error is None or row.error.startswith("no JSON") for row in rows)


def test_half_of_an_emoji_is_replaced_for_no_table_could_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"problem": "cut \\ud83d", "answer": "1"}\n["\\ud83d"]\n')
    rows = read(source(path))
    assert rows[0].problem == "cut ?"
    for row in rows:
        (row.error or "").encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.jsonl", None, "does not exist: correct its path"),
        ("set.txt", b"x", "is no .jsonl, .csv, .parquet file or folder of them"),
        ("set.jsonl", b"", "has no rows: give a problem set that is not empty"),
        ("set.csv", b"problem,answer\n", "has no rows"),
        ("set.parquet", b"garbage" * 9, "is no Parquet"),
        ("set.jsonl", b'{"question": "p", "answer": "1"}', "has no column 'problem' for 'problem' (it has answer, question): set the source's columns.problem"),
        ("set.csv", b"problem,key\np,1\n", "has no column 'answer' for 'answer' (it has key, problem)"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_used_is_one_line(name: str, data: bytes | None, said: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(source(tmp_path / name))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_parquet_or_folder_is_one_line(tmp_path: Path) -> None:
    pd.DataFrame({"problem": [], "answer": []}).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(DataError, match="has no rows"):
        read(source(tmp_path / "set.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is no \.jsonl"):
        read(source(tmp_path / "empty"))


def test_a_column_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "set.jsonl", [{"problem": "p", "answer": "1"}])
    assert len(read(source(path))) == 1
    with pytest.raises(DataError, match="has no column 'level' for 'level'"):
        read(source(path, level="level"))


def test_a_benchmark_is_read_in_its_order(tmp_path: Path) -> None:
    path = write(tmp_path, "b.jsonl", ROWS)
    problems = sources.read_benchmark(Benchmark(name="b", path=str(path), problems=2), None)
    assert [(p.problem_id, p.answer, p.source) for p in problems] == [
        (problem_id(r["problem"]), r["answer"], "b") for r in ROWS
    ]


@pytest.mark.parametrize(
    ("rows", "expected", "said"),
    [
        ([{"problem": "p", "answer": "1"}], 2, "has 1 problems, the config expects 2"),
        ([{"problem": "p", "answer": None}], None, "b.jsonl:1: no problem or no answer"),
        ([{"problem": "", "answer": "1"}], None, "no problem or no answer"),
    ],
)
def test_a_benchmark_with_less_than_promised_is_refused(
    rows: list[dict[str, Any]], expected: int | None, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "b.jsonl", rows)
    with pytest.raises(DataError, match=said):
        sources.read_benchmark(Benchmark(name="b", path=str(path), problems=expected), None)
