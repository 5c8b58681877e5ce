"""A user's mistake is one line on stderr and exit status 2, and nothing is half-written."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import small
from local_servers import Teacher, addresses, free_port
from ray.exceptions import RayTaskError

from pipeline import storage
from ray_jobs import cli


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; gives the one line it says."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]  # progress
        assert ended.value.code == 2
        assert len(said) == 1 and said[0].startswith("error: "), said
        return said[0]

    return run


@pytest.fixture
def settings(sums: Path) -> list[str]:
    return small.overrides(sums, str(sums / "run"), "http://127.0.0.1:1/v1")


def test_an_unknown_key_is_named_with_the_nearest_right_one(mistake, settings):
    assert "'distill.max_sample': did you mean 'max_samples'?" in mistake(
        *small.arguments("distill", [*settings, "distill.max_sample=3"])
    )


def test_a_missing_config_file_is_named(mistake):
    assert "no/such.yaml" in mistake("run", "--config", "no/such.yaml")


def test_a_missing_problem_file_is_named(mistake, settings, sums):
    (sums / "problems.jsonl").unlink()
    assert "problems.jsonl' does not exist" in mistake(*small.arguments("curate", settings))


def test_parquet_with_a_missing_column_names_it_and_what_there_is(mistake, settings, sums):
    pandas.DataFrame({"question": ["1+1?"], "answer": ["2"]}).to_parquet(sums / "p.parquet")
    source = json.dumps([{"name": "p", "path": str(sums / "p.parquet"), "license": "MIT"}])
    line = mistake(*small.arguments("curate", [*settings, f"curate.sources={source}"]))
    assert "no column 'problem'" in line and "question" in line and "columns.problem" in line


def test_an_empty_problem_set_is_refused(mistake, settings, sums):
    (sums / "problems.jsonl").write_text("")
    assert "has no rows" in mistake(*small.arguments("curate", settings))
    assert not (sums / "run").exists() or not list((sums / "run").rglob("manifest.json"))


def test_a_stage_before_its_input_says_which_to_run(mistake, settings):
    assert "run `longthought curate` first" in mistake(*small.arguments("distill", settings))


def test_a_model_that_is_none_is_refused_before_any_stage_runs(mistake, settings, sums):
    line = mistake(*small.arguments("run", [*settings, f"train.model={sums}"]))
    assert str(sums) in line and "no config.json" in line
    assert not (sums / "run").exists()


def test_a_key_that_is_needed_later_is_missed_before_any_stage_runs(mistake, settings, sums):
    line = mistake(*small.arguments("run", [*settings, "serve.api_key_env=NOT_SET_ANYWHERE"]))
    assert "the environment variable NOT_SET_ANYWHERE is not set" in line
    assert not (sums / "run").exists()


def test_a_root_that_ray_would_delete_is_refused(mistake, settings):
    root = "/tmp/ray/session/runtime_resources/working_dir_files/_ray_pkg_1/runs/demo"
    line = mistake(*small.arguments("curate", [*settings, f"storage.root={root}"]))
    assert "storage.root" in line and "s3://" in line and not Path(root).exists()


def test_a_root_where_another_run_works_is_refused_naming_it(mistake, settings, sums):
    with storage.held(storage.Place(str(sums / "run"))):
        line = mistake(*small.arguments("curate", settings))
    assert "is held by another run: " in line and f"(process {os.getpid()})" in line
    assert not list((sums / "run").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "RUN", "nonsense"], "unknown stage 'nonsense'"),
        (["show", "RUN", "curate", "problems"], "holds no tables"),
        (["plan", "--config", "DEMO", "--right", "1.5"], "'1.5' is no share: give one from 0 to 1"),
        (["plan", "--config", "DEMO", "--problems", "many"], "'many' is no number"),
        (
            ["plan", "--config", "PAPER", "--gpu", "H1000"],
            "unknown GPU 'H1000': set it, or give --gpu: one of A100-40G",
        ),
        (
            ["plan", "--config", "DEMO", "--set", "curate.sources=[{name: s, path: no.jsonl, license: MIT}]"],
            "'no.jsonl' does not exist",
        ),
        (["teacher", "--replay", "no.jsonl"], "no recorded traces at 'no.jsonl'"),
        (["teacher", "--replay", "TRACES", "--fault", "429"], "NAME=SHARE"),
        (["teacher", "--replay", "TRACES", "--fault", "flood=1"], "unknown fault 'flood'"),
        (["teacher", "--replay", "TRACES", "--require-key-env", "UNSET_KEY"], "UNSET_KEY is not set"),
        (["teacher", "--replay", "TRACES", "--log", "no/such/folder/log"], "cannot be written"),
    ],
)
def test_mistakes_of_the_other_commands(mistake, sums, arguments, said):
    places = {"RUN": str(sums / "run"), "TRACES": str(sums / "traces.jsonl")}
    places |= {"DEMO": str(small.REPO / "configs/demo.yaml"), "PAPER": str(small.REPO / "configs/paper_72b.yaml")}
    assert said in mistake(*(places.get(argument, argument) for argument in arguments))


ONE_CPU = """
import sys
from ray_jobs import cli, cluster
cluster.connect(address="local", num_cpus=1)
cli.main(sys.argv[1:])
"""


@pytest.mark.ray
def test_a_cluster_of_one_cpu_says_what_it_lacks_in_time(settings, sums, start_teacher):
    teacher: Teacher = start_teacher(sums / "traces.jsonl")
    arguments = small.arguments("run", [*settings, f"rewriter.base_url={teacher.url}", "cluster.wait_s=5"])
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", ONE_CPU, *arguments], cwd=small.REPO, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 2, ended.stderr[-2000:]
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: curate needs 1 workers of 0.5 CPU") and "the cluster has 1 CPU" in line
    assert time.monotonic() - started < 150


@pytest.mark.ray
@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "127.0.0.1:1"])
def test_an_address_where_no_ray_is_told_in_one_line(settings, address):
    command = small.command("curate", settings)
    environment = {**os.environ, "RAY_ADDRESS": address}
    ended = subprocess.run(command, cwd=small.REPO, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2, ended.stderr[-2000:]
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(f"error: cannot use the Ray cluster '{address}': ") and "RAY_ADDRESS" in line


def test_a_ray_that_a_crash_left_here_is_told_in_one_line(settings, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    command = small.command("curate", settings)
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(command, cwd=small.REPO, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2, ended.stderr[-2000:]
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: cannot use the Ray cluster '127.0.0.1:1': ") and "goes with `ray stop`" in line


@pytest.mark.ray
class TestWithCuratedProblems:
    @pytest.fixture(autouse=True)
    def curated(self, ray_cluster, settings):
        cli.main(small.arguments("curate", settings))

    def test_an_unreachable_teacher_is_named(self, mistake, settings):
        url = f"http://127.0.0.1:{free_port()}/v1"
        line = mistake(*small.arguments("distill", [*settings, f"teacher.base_url={url}"]))
        assert url in line and "cannot be reached" in line

    def test_a_wrong_key_stops_at_once_and_is_not_shown(self, mistake, settings, sums, start_teacher, monkeypatch):
        monkeypatch.setenv("RIGHT_KEY", "right-0123456789")
        monkeypatch.setenv("WRONG_KEY", "wrong-0123456789")
        teacher: Teacher = start_teacher(sums / "traces.jsonl", "--require-key-env", "RIGHT_KEY")
        wrong = [*settings, f"teacher.base_url={teacher.url}", "teacher.api_key_env=WRONG_KEY"]
        line = mistake(*small.arguments("distill", wrong))
        assert "401" in line and "WRONG_KEY" in line and "wrong-0123456789" not in line
        assert teacher.stats()["requests"] == 0

    def test_an_unset_key_names_its_variable(self, mistake, settings):
        line = mistake(*small.arguments("distill", [*settings, "teacher.api_key_env=NOT_SET_ANYWHERE"]))
        assert "NOT_SET_ANYWHERE is not set" in line

    def test_a_key_that_the_nodes_lack_is_missed_there(self, mistake, settings, sums, start_teacher, monkeypatch):
        monkeypatch.setenv("DRIVERS_KEY", "0123456789")  # after the nodes were started
        teacher: Teacher = start_teacher(sums / "traces.jsonl", "--require-key-env", "DRIVERS_KEY")
        here = [*settings, f"teacher.base_url={teacher.url}", "teacher.api_key_env=DRIVERS_KEY"]
        line = mistake(*small.arguments("distill", here))
        assert "DRIVERS_KEY is not set" in line and "on every node" in line

    def test_a_store_of_answers_that_cannot_be_read_is_named(self, mistake, settings, sums, start_teacher):
        teacher: Teacher = start_teacher(sums / "traces.jsonl")
        (sums / "run/3_distill").mkdir()
        (sums / "run/3_distill/responses").write_text("")
        line = mistake(*small.arguments("distill", [*settings, f"teacher.base_url={teacher.url}"]))
        assert "run/3_distill/responses" in line

    def test_an_unknown_model_stops_the_run(self, mistake, settings, sums, start_teacher):
        teacher: Teacher = start_teacher(sums / "traces.jsonl")
        unknown = [*settings, f"teacher.base_url={teacher.url}", "teacher.model=gpt-17"]
        assert "404" in mistake(*small.arguments("distill", unknown))

    def test_a_changed_setting_is_refused_by_its_name(self, mistake, settings):
        line = mistake(*small.arguments("curate", [*settings, "curate.answer_types=[integer]"]))
        assert "curate.answer_types" in line and "storage.root" in line

    def test_resources_the_cluster_lacks_are_said_in_time(self, mistake, settings, sums, start_teacher):
        teacher: Teacher = start_teacher(sums / "traces.jsonl")
        line = mistake(
            *small.arguments(
                "distill",
                [
                    *settings,
                    f"teacher.base_url={teacher.url}",
                    "distill.actors=9",
                    "distill.actor_cpus=1",
                    "cluster.wait_s=2",
                ],
            )
        )
        assert "needs 9 workers of 1 CPU" in line and "the cluster has 2 CPU" in line and "distill.actors" in line


def test_a_teacher_listens_on_loopback_unless_told_otherwise(sums, start_teacher):
    assert addresses(start_teacher(sums / "traces.jsonl").port) == {"127.0.0.1"}
    assert addresses(start_teacher(sums / "traces.jsonl", "--host", "0.0.0.0").port) == {"0.0.0.0"}


# --- grade ----------------------------------------------------------------------------------------

PAIRS = [
    {"id": "a", "gold": "1/2", "response": r"So \boxed{0.5}", "label": True},
    {"id": "b", "gold": "4", "response": r"\boxed{5}", "label": True},
    {"id": "c", "gold": "4", "response": "I do not know.", "label": False},
    {"gold": "x+1", "response": "The answer is $1 + x$.", "label": True},
    {"id": 5, "gold": 72, "response": "#### 72"},
]


def test_grade_gives_a_verdict_for_each_row_in_order_and_a_summary(tmp_path, capsys):
    pairs = small.write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    cli.main(["grade", str(pairs), "--workers", "2"])
    printed = capsys.readouterr()
    made = [json.loads(line) for line in printed.out.splitlines()]
    assert [(row["id"], row["verdict"], row["extracted"]) for row in made] == [
        ("a", "correct", "0.5"), ("b", "incorrect", "5"), ("c", "unparsable", None), (4, "correct", "1 + x"),
        (5, "correct", "72"),
    ]  # fmt: skip
    assert set(made[0]) == {"id", "verdict", "extracted", "matched_by", "seconds"}
    assert "5 rows: 3 correct (60.0%)" in printed.err
    assert "precision 1.0000, recall 0.6667" in printed.err


def test_grade_compares_conventions(tmp_path, capsys):
    pairs = small.write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    cli.main(["grade", str(pairs), "--conventions", "final_answer,math_verify,lm_eval,qwen_math"])
    printed = capsys.readouterr()
    made = [json.loads(line) for line in printed.out.splitlines()]
    assert len(made) == 4 * len(PAIRS)
    assert [(row["convention"], row["verdict"]) for row in made if row["id"] == "a"] == [
        ("final_answer", "correct"), ("math_verify", "correct"), ("lm_eval", "correct"), ("qwen_math", "correct"),
    ]  # fmt: skip
    table = [line.split("  ") for line in printed.err.splitlines()]
    assert table[0] == ["5 rows"] and "unlike final_answer" in printed.err
    figures = {line[0]: [cell.strip() for cell in line if cell][1:] for line in table[2:]}
    assert figures["final_answer"] == ["60.0%", "3", "1", "0", "0", "precision 1.0000, recall 0.6667"]
    assert figures["lm_eval"][0] == "20.0%" and figures["lm_eval"][4] == "2"


def test_grade_reads_the_generations_of_a_run(tmp_path, capsys, mistake):
    rows = [
        {"generation_id": "g1", "answer": "12", "response": r"\boxed{12}", "status": "ok"},
        {"generation_id": "g2", "answer": "12", "response": r"\boxed{13}", "status": "truncated"},
        {"generation_id": "g3", "answer": "12", "response": "", "status": "failed"},
    ]
    (tmp_path / "generations").mkdir()
    for number, row in enumerate(rows):
        pandas.DataFrame([row]).to_parquet(tmp_path / "generations" / f"{number}.parquet")
    cli.main(["grade", str(tmp_path / "generations"), "--conventions", "last_number"])
    printed = capsys.readouterr()
    made = [json.loads(line) for line in printed.out.splitlines()]
    assert [(row["id"], row["verdict"]) for row in made] == [("g1", "correct"), ("g2", "incorrect")]
    assert "2 rows: 1 correct (50.0%)" in printed.err
    pandas.DataFrame([{**rows[0], "label": True}]).to_parquet(tmp_path / "generations" / "3.parquet")
    cli.main(["grade", str(tmp_path / "generations"), "--conventions", "last_number"])
    assert len(capsys.readouterr().out.splitlines()) == 3, "not all files have the optional columns"
    pandas.DataFrame([{"answer": "1"}]).to_parquet(tmp_path / "other.parquet")
    assert "has no column 'response': it has answer" in mistake("grade", str(tmp_path / "other.parquet"))
    (tmp_path / "empty").mkdir()
    assert "holds no Parquet" in mistake("grade", str(tmp_path / "empty"))


def test_grade_knows_its_conventions_and_explains_them(mistake, capsys):
    line = mistake("grade", "-", "--conventions", "final_answer,mathverify")
    assert "'mathverify' is no convention" in line and "math_verify" in line
    with pytest.raises(SystemExit):
        cli.main(["grade", "--help"])
    assert "Qwen2.5-Math's" in capsys.readouterr().out


def test_grade_streams(tmp_path):
    command = [sys.executable, "-m", "ray_jobs", "grade", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=small.REPO, text=True, **pipes) as grader:
        row = json.dumps({"id": 1, "gold": "4", "response": "4"}) + "\n"
        grader.stdin.write(row * 40)
        grader.stdin.flush()
        assert json.loads(grader.stdout.readline())["verdict"] == "correct", "before the input ends"
        grader.stdin.close()
        assert len(grader.stdout.readlines()) == 39
        assert grader.wait() == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"gold": "1"', "line 2: is no JSON"),
        ('{"gold": "1"}', "line 2: 'response' is no text"),
        ('{"gold": [1], "response": "1"}', "line 2: 'gold' is no text"),
        ('{"gold": 1, "response": null}', "line 2: 'response' is no text"),
        ("[" * 100_000, "line 2: is no JSON"),
        ("[1]", "line 2: 'gold' is no text"),
    ],
)
def test_grade_names_a_bad_line_and_loses_no_good_one(mistake, tmp_path, capsys, line, said):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(f"{json.dumps(PAIRS[0])}\n{line}\n{json.dumps(PAIRS[1])}\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["grade", str(pairs)])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and said in printed.err and printed.err.count("\n") == 1
    assert [json.loads(row)["id"] for row in printed.out.splitlines()] == ["a"]


def test_grade_wants_a_file(mistake):
    assert "no/such.jsonl" in mistake("grade", "no/such.jsonl")
    assert "processes" in mistake("grade", "-", "--workers", "0")


@pytest.mark.parametrize("kind", ["pipe", "of Ray's"])
def test_a_command_that_breaks_off_does_not_look_like_one_that_is_done(kind, tmp_path, monkeypatch):
    broken = BrokenPipeError(32, "Broken pipe")
    ray_s = RayTaskError("work", "traceback", broken).as_instanceof_cause()
    assert isinstance(ray_s, BrokenPipeError)

    def fail(parsed):
        raise broken if kind == "pipe" else ray_s

    monkeypatch.setattr(cli, "_grade", fail)
    monkeypatch.setattr("sys.stderr", (tmp_path / "stderr").open("w"))
    with pytest.raises(SystemExit if kind == "pipe" else type(ray_s)) as ended:
        cli.main(["grade", str(tmp_path)])
    assert kind != "pipe" or ended.value.code == 141
