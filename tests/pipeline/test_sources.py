"""Problem sets as people have them: four formats, their own columns, broken lines, foreign encodings."""

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import REPO

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
    plain = name.removesuffix(".gz").removesuffix(".zst")
    if plain.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
        return path
    if plain.endswith(".csv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
        data = b"\xef\xbb\xbf" + text.getvalue().encode()  # as Excel writes it
    elif plain.endswith(".json"):
        data = json.dumps(rows, indent=1).encode()
    else:
        data = "\n".join(json.dumps(row) for row in rows).encode()
    pack = {".gz": gzip.compress, ".zst": lambda raw: pa.compress(raw, "zstd", asbytes=True)}.get(path.suffix, bytes)
    path.write_bytes(pack(data))
    return path


def source(path: Path | str, where: dict[str, Any] | None = None, **columns: Any) -> Source:
    return Source(name="set", path=str(path), license="MIT", columns=Columns(**columns), where=where or {})


def read(given: Source, endpoint: str | None = None) -> list[RawRow]:
    return [row for file in sources.files_of(given, endpoint) for row in sources.read(file, given)]


@pytest.mark.parametrize(
    "name",
    ["set.jsonl", "set.json", "set.csv", "set.parquet", "set.jsonl.gz", "set.jsonl.zst", "set.json.gz", "set.csv.gz"],
)
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


def test_a_pattern_names_the_files_it_matches(tmp_path: Path) -> None:
    for name in ("algebra/train-0.jsonl", "algebra/test-0.jsonl", "geometry/train-0.jsonl", "a/b/train-0.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path, name, ROWS[:1])
    files = sources.files_of(source(f"{tmp_path}/*/train-*.jsonl"), None)
    assert [file.uri.removeprefix(f"{tmp_path}/") for file in files] == [
        "algebra/train-0.jsonl", "geometry/train-0.jsonl",
    ]  # fmt: skip
    with pytest.raises(DataError, match="does not exist"):
        sources.files_of(source(f"{tmp_path}/*/valid-*.jsonl"), None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2, "2"), (27.0, "27"), (0.5, "0.5"), (float("nan"), None), (10**30, str(10**30)), (True, "True"),
        (["2"], "2"), (["1", 3.0], "1, 3"), ([], None), (" x ", "x"), ({"a": ["é"]}, '{"a": ["é"]}'), ([[1]], "[[1]]"),
    ],
)  # fmt: skip
def test_an_answer_of_any_type_becomes_text(value: Any, text: str | None, tmp_path: Path) -> None:
    (row,) = read(source(write(tmp_path, "set.jsonl", [{"problem": "p", "answer": value}])))
    assert row.answer == text


def test_numbers_and_lists_of_parquet_become_text(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": 27.0, "solution": ["one way", "another"]}, {"problem": None, "answer": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    first, second = read(source(tmp_path / "set.parquet"))
    assert (first.answer, first.solution) == ("27", "one way\n\nanother")
    assert (second.problem, second.answer, second.solution, second.error) == (None, None, None, None)


BROKEN_LINES = {
    b'{"problem": "p", "answer": "1"}': None,
    b"": None,
    b'{"problem": "cut': "no JSON: Unterminated string",
    b"[1]": "no JSON object: [1]",
    b'"text"': "no JSON object: text",
    b'{"problem": "\xff\xfe"}': "invalid UTF-8: byte 0xff at 13",
    b"[" * 99_999: "no JSON: maximum recursion",
    b'{"problem": "' + b"p" * 5_000_000 + b'"}': "problem of 5,000,000 characters, more than 100,000",
    b'{"problem": null}': None,
    b"x" * ((1 << 25) + 5_000_000): "a line of more than 33,554,432 bytes",
    b'{"problem": "q", "answer": "1"}': None,
}


def test_a_broken_line_is_a_row_with_its_line_number_and_its_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\r\n".join(BROKEN_LINES))
    rows = read(source(path))
    assert [int(row.place.rpartition(":")[2]) for row in rows] == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    wanted = [error for line, error in BROKEN_LINES.items() if line]
    assert [row.error and row.error[: len(error or "")] for row, error in zip(rows, wanted, strict=True)] == wanted
    assert [row.problem for row in rows if row.error is None] == ["p", None, "q"]


def test_a_broken_row_of_a_csv_is_a_row_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(b'problem,answer\np,1\n\n"\xff\nq",2\nr,3,4\ns\n"' + b"t" * (1 << 26) + b'",6\n')
    rows = read(source(path))
    assert [(row.problem, row.answer, row.error) for row in rows[:4]] == [
        ("p", "1", None), (None, None, "invalid UTF-8"), (None, None, "3 fields where the header has 2"), ("s", None, None),
    ]  # fmt: skip
    assert [row.error for row in rows[4:]] == ["problem of 33,554,432 characters, more than 100,000"]


def test_a_broken_string_of_a_parquet_file_is_a_row_with_its_error(tmp_path: Path) -> None:
    problems = pa.Array.from_buffers(
        pa.string(), 3, [*pa.array(["ok", "??", "ok"]).buffers()[:2], pa.py_buffer(b"ok\xff\xfeok")]
    )
    pq.write_table(pa.table({"problem": problems, "answer": ["1", "2", "3"]}), tmp_path / "set.parquet")
    rows = read(source(tmp_path / "set.parquet"))
    assert [(row.problem, row.error) for row in rows] == [
        ("ok", None), (None, "invalid UTF-8: byte 0xff at 0"), ("ok", None),
    ]  # fmt: skip


def test_a_broken_row_of_a_json_array_is_a_row_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_bytes(
        b'\xef\xbb\xbf[{"problem": "\xff", "answer": 1},\n 7, {"problem": "p", "answer": 1}]'
    )
    rows = read(source(tmp_path / "set.json"))
    assert [(row.problem, row.error) for row in rows] == [
        (None, "invalid UTF-8"), (None, "no JSON object: 7"), ("p", None),
    ]  # fmt: skip


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    write(tmp_path, "set.jsonl", ROWS).rename(tmp_path / "set.json")
    assert [row.answer for row in read(source(tmp_path / "set.json"))] == ["2", "1"]


SELECTED = [
    ({"source": ["a", "b"]}, "abab"),
    ({"source": "a"}, "aa"),
    ({"valid": [True]}, "aba"),
    ({"valid": ["Yes"]}, "ab"),
    ({"difficulty": {"min": 5}}, "abb"),
    ({"difficulty": {"min": 5, "max": 6.5}}, "ab"),
    ({"difficulty": [5]}, "a"),
    ({"difficulty": [None]}, "c"),
    ({"topics": ["algebra"]}, "ab"),
    ({"source": ["a"], "valid": ["Yes"]}, "a"),
]


@pytest.mark.parametrize(("where", "kept"), SELECTED)
def test_the_rows_that_are_asked_for_are_told_from_the_others(where: dict[str, Any], kept: str, tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "source": "a", "valid": "Yes", "difficulty": 5, "topics": ["algebra", "sets"]},
        {"problem": "p", "source": "b", "valid": "Yes", "difficulty": "6.5", "topics": ["algebra"]},
        {"problem": "p", "source": "a", "valid": True, "difficulty": 4.5, "topics": []},
        {"problem": "p", "source": "b", "valid": "Incomplete", "difficulty": 9.0, "topics": ["sets"]},
        {"problem": "p", "source": "c", "valid": None, "difficulty": None, "topics": None},
    ]
    found = read(source(write(tmp_path, "set.jsonl", rows), where, answer=None, subset="source"))
    assert "".join(row.subset or "" for row in found if row.deselected is None) == kept
    (name, *_) = where
    assert all(row.deselected is None or row.deselected.split(" is ")[0] in where for row in found)
    assert any(row.deselected and row.deselected.startswith(f"{name} is ") for row in found)


def test_a_column_to_select_by_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "set.jsonl", ROWS)
    with pytest.raises(
        DataError, match=r"has no column 'sorce' \(it has answer, problem, solution\): correct the source's where"
    ):
        read(source(path, {"sorce": ["a"]}))


def test_the_origin_is_the_path_unless_the_config_says_another(tmp_path: Path) -> None:
    given = source(write(tmp_path, "set.jsonl", ROWS))
    (file,) = sources.files_of(given, None)
    assert sources.origin_of(given, file) == given.path
    assert sources.origin_of(given.model_copy(update={"origin": "a book"}), file) == "a book"


MEASURE = """
import resource, sys
from pipeline.config import Source
from pipeline.sources import files_of, read
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
def rows(path):
    source = Source(name="s", path=path, license="MIT")
    return sum(1 for file in files_of(source, None) for row in read(file, source))
small, large = sys.argv[1:]
rows(small)
before = peak()
print(rows(large), peak() - before)
"""


@pytest.mark.parametrize("name", ["set.jsonl", "set.csv", "set.parquet", "set.jsonl.gz"])
def test_a_large_file_takes_no_more_memory_than_a_small_one(name: str, tmp_path: Path) -> None:
    row = {"problem": "p" * 1000, "answer": "1", "solution": "s" * 9000}
    (tmp_path / "small").mkdir()
    small = write(tmp_path / "small", name, [row] * 500)
    large = write(tmp_path, name, [row] * 6_000)  # 60 MB of text
    child = [sys.executable, "-c", MEASURE, str(small), str(large)]
    rows, grown = subprocess.run(child, cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    assert int(rows) == 6_000 and int(grown) < 20, f"{grown} MB more"


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
        ("set.txt", b"x", "is no file or folder of .parquet, .jsonl, "),
        ("set.json", b'[{"problem": "p"},', "is no JSON array (Expecting value"),
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
    with pytest.raises(DataError, match=r"does not exist|is no file or folder of \.parquet"):
        read(source(tmp_path / "empty"))


def test_a_column_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "set.jsonl", [{"problem": "p", "answer": "1"}])
    assert len(read(source(path))) == 1
    with pytest.raises(DataError, match="has no column 'level' for 'level'"):
        read(source(path, level="level"))


def test_a_benchmark_is_read_in_its_order(tmp_path: Path) -> None:
    path = write(tmp_path, "b.jsonl", ROWS)
    problems = sources.read_benchmark(Benchmark(name="b", path=str(path), problems=2), [Place(str(path))])
    assert [(p.problem_id, p.answer, p.source) for p in problems] == [
        (problem_id(r["problem"]), r["answer"], "b") for r in ROWS
    ]


def test_a_benchmark_keeps_levels_and_subsets_and_problems_that_stand_in_it_twice(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": str(n), "level": "5", "subject": "Algebra"} for n in range(3)]
    path = write(tmp_path, "b.jsonl", rows)
    columns = {"solution": None, "level": "level", "subset": "subject"}
    benchmark = Benchmark.model_validate({"name": "b", "path": str(path), "columns": columns})
    problems = sources.read_benchmark(benchmark, [Place(str(path))])
    assert [(p.level, p.subset, p.answer) for p in problems] == [
        ("5", "Algebra", "0"),
        ("5", "Algebra", "1"),
        ("5", "Algebra", "2"),
    ]
    assert [p.problem_id for p in problems] == [problem_id("p"), problem_id("p") + "-2", problem_id("p") + "-3"]


def test_the_answer_of_a_benchmark_is_taken_from_gsm8ks_solutions(tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "answer": "48/2 = <<48/2=24>>24\n48+24 = 72\n#### 1,072"},
        {"problem": "q", "answer": "#4"},
    ]
    path = write(tmp_path, "b.jsonl", rows)
    problems = sources.read_benchmark(Benchmark(name="b", path=str(path)), [Place(str(path))])
    assert [problem.answer for problem in problems] == ["1,072", "#4"]


@pytest.mark.parametrize(
    ("rows", "expected", "said"),
    [
        ([{"problem": "p", "answer": "1"}], 2, "has 1 problems, the config expects 2"),
        ([{"problem": "p", "answer": None}], None, "b.jsonl:1: no problem or no answer"),
        ([{"problem": "", "answer": "1"}], None, "no problem or no answer"),
        ([{"problem": "p" * 100_001, "answer": "1"}], None, "b.jsonl:1: problem of 100,001 characters"),
    ],
)
def test_a_benchmark_with_less_than_promised_is_refused(
    rows: list[dict[str, Any]], expected: int | None, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "b.jsonl", rows)
    with pytest.raises(DataError, match=said):
        sources.read_benchmark(Benchmark(name="b", path=str(path), problems=expected), [Place(str(path))])


@pytest.mark.shared
def test_every_row_of_real_sets_is_read(shared_data: Path) -> None:
    for path in sorted((shared_data / "problems").glob("*/*.jsonl")):
        rows = read(source(path, answer=None))
        assert len(rows) == path.read_bytes().count(b"\n"), path
        assert all(row.problem and not row.error for row in rows), path


def test_an_empty_or_broken_part_does_not_stop_a_set(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"problem": "x?"}\n{"problem": "y?", "answer": "2"}\n')
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl").write_bytes(b"{broken\n")
    rows = read(source(tmp_path))
    assert [(row.problem, row.answer) for row in rows] == [("x?", None), ("y?", "2"), (None, None)]
    assert rows[2].error is not None and rows[2].place.endswith("c.jsonl:1")
