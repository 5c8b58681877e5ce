"""A config is either right or refused in one line that names the key, the value and the mending."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import REPO

from pipeline import config, hub
from pipeline.catalogue import BENCHMARKS, TRAINING_SETS
from pipeline.errors import ConfigError
from pipeline.secrecy import names_a_secret
from pipeline.sources.formats import FORMATS

SHIPPED = sorted(path.name for path in (REPO / "configs").glob("*.yaml"))


def write(tree: Any, folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return str(path)


def refusal(path: str, *overrides: str) -> str:
    """The one line that refuses a config."""
    with pytest.raises(ConfigError) as caught:
        config.load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_and_survives_being_written(name: str, tmp_path: Path) -> None:
    loaded = config.load(str(REPO / "configs" / name))
    (tmp_path / "again.yaml").write_text(config.as_yaml(loaded))
    assert config.load(str(tmp_path / "again.yaml")) == loaded


def test_there_is_a_config_for_each_real_use() -> None:
    assert {"demo.yaml", "single_gpu.yaml", "paper_72b.yaml"} <= set(SHIPPED)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distil.keep=2", "unknown config key 'distil': did you mean 'distill'?"),
        ("distill.max_sample=2", "unknown config key 'distill.max_sample': did you mean 'max_samples'?"),
        ("train.stage1.learning_rat=1", "unknown config key 'train.stage1.learning_rat': did you mean 'learning_rate'?"),
        ("teacher.price.promt=1", "unknown config key 'teacher.price.promt': did you mean 'prompt'?"),
        ("evaluate.endpoint={model: m, samplings: {max_tokens: 1}}", "did you mean 'sampling'?"),
        ("verify.zzzzzz=2", "unknown config key 'verify.zzzzzz': known here: max_per_problem, prefer"),
        ("distill.keep=many", "config key 'distill.keep' is 'many': input should be a valid integer"),
        ("distill.keep=0", "config key 'distill.keep' is 0: input should be greater than 0"),
        ("verify.training_text=xml", "config key 'verify.training_text' is 'xml': input should be 'think' or 'response'"),
        ("distill=5", "config key 'distill' is 5"),
        ("storage=runs/x", "config key 'storage' is 'runs/x'"),
        ("storage.root=s3:/bucket/run", "root is 's3:/bucket/run': give a path, or a URI as s3://bucket/run"),
        ("storage.root=https://bucket/run", "root is 'https://bucket/run': give a path"),
        ("storage.root=", "config key 'storage.root' is None: input should be a valid string"),
        ("train.model=[a, b]", "config key 'train.model' is ['a', 'b']"),
        ("distill={keep: 5, max_samples: 4}", "keep is 5, more than max_samples, 4: raise max_samples"),
        ("evaluate.budgets=[64, 32]", "budgets are [64, 32]: give them once each, in rising order"),
        ("evaluate.budgets=[]", "config key 'evaluate.budgets' is []"),
        ("evaluate.samples=4", "samples is 4 at temperature 0, where all are equal: set a temperature"),
        ("evaluate.samples=2000", "config key 'evaluate.samples' is 2000: input should be less than or equal to 1000"),
        ("evaluate.conventions=[]", "config key 'evaluate.conventions' is []"),
        ("evaluate.models=[base, base]", "holds 'base' more than once: name it once"),
        ("evaluate.benchmarks=[{known: gsm8k}, {known: gsm8k}]", "two benchmarks have the name 'gsm8k'"),
        ("evaluate.extra={n: 3}", "extra holds 'n', which evaluation sets itself: remove it"),
        ("evaluate.endpoint={model: m, sampling: {max_tokens: 7}}", "endpoint.sampling.max_tokens is 7, but the largest of budgets is"),
        ("serve.engine={max_model_len: 99}", "engine holds 'max_model_len', which max_model_len sets: remove it"),
        ("serve.engine={tensor_parallel_size: 2}", "engine holds 'tensor_parallel_size', which replica_gpus sets: remove it"),
        ("evaluate.budgets=[500]", "raise serve.max_model_len"),
        ("train.workers=3", "stage1.rows_per_step is 2, fewer than workers / sequence_parallel x micro_rows = 3"),
        ("train.sequence_parallel=2", "workers is 1, no multiple of sequence_parallel, 2"),
        ("train.offload=nvme", "offload nvme is set, but zero_stage is 2: set zero_stage to 3"),
        ("teacher.sampling.extra={max_tokens: 5}", "sampling.extra holds 'max_tokens', which the client sets itself"),
        ("distill.keep", "--set 'distill.keep' is not of the form section.key=value"),
        ("=5", "--set '=5' is not of the form section.key=value"),
        ("distill.keep=[1", "--set distill.keep: the value '[1' is no valid YAML: quote it"),
        ("distill.keep.deep=1", "config key 'distill.keep' is {'deep': 1}"),
        ("curate.sources.0.path=x", "--set curate.sources.0.path: 'sources' is a list: set it whole"),
        ("storage.root.deep=1", "--set storage.root.deep: 'root' is no section of the config"),
        ("curate.sources=[{known: numina}]", "known is 'numina', which is no ready-made set: use one of deepscaler, gsm8k-train, "),
        ("curate.sources=[{known: [math-train]}]", "known is ['math-train'], which is no ready-made set"),
        ("curate.sources=[{known: math500}]", "known is 'math500', which is no ready-made set"),
        ("curate.sources=[{known: math-train, licence: x}]", "unknown config key 'curate.sources.0.licence': did you mean 'license'?"),
        ("evaluate.benchmarks=[{known: aime}]", "known is 'aime', which is no ready-made set: use one of aime2024, "),
        ("curate.sources=[{known: deepscaler, where: {a: {mn: 1}}}]", "did you mean 'min'?"),
        ("curate.sources=[{known: deepscaler, where: {a: {}}}]", "a range has neither min nor max: set one"),
        ("curate.sources=[{known: deepscaler, where: {a: {min: 9, max: 1}}}]", "min is 9, more than max, 1: exchange them"),
        ("curate.sources=[{known: deepscaler, where: {a: [[1]]}}]", "is [1]: input should be a valid string"),
        ("curate.sources=[{known: deepscaler, where: a}]", "config key 'curate.sources.0.where' is 'a': input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_with_the_mending(
    override: str, said: str, demo_tree: dict[str, Any], tmp_path: Path
) -> None:
    assert said in refusal(write(demo_tree, tmp_path), override)


@pytest.mark.parametrize("name", TRAINING_SETS)
def test_a_ready_made_set_is_complete_and_pinned(name: str) -> None:
    source = config.Source.model_validate({"known": name})
    assert source.name == name and source.license in ("Apache-2.0", "MIT")
    assert hub.repository_and_commit(source.path) and source.path.endswith(FORMATS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_ready_made_benchmark_is_complete_and_pinned(name: str) -> None:
    benchmark = config.Benchmark.model_validate({"known": name})
    assert benchmark.name == name and benchmark.problems
    assert hub.repository_and_commit(benchmark.path) and benchmark.path.endswith(FORMATS)


def test_what_a_ready_made_set_says_can_be_overridden(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    given = {
        "known": "numina-math-1.5",
        "name": "mine",
        "columns": {"level": "problem_type"},
        "where": {"source": "olympiads"},
    }
    demo_tree["curate"]["sources"] = [given]
    (source,) = config.load(write(demo_tree, tmp_path)).curate.sources
    assert (source.name, source.license) == ("mine", "Apache-2.0")
    assert (source.columns.problem, source.columns.subset, source.columns.level) == (
        "problem",
        "source",
        "problem_type",
    )
    assert source.where == {"source": ("olympiads",)}


def test_what_a_ready_made_set_stands_for_decides_not_its_name(demo_tree: dict[str, Any]) -> None:
    where = {"difficulty": {"min": 5}, "source": ["a", "b"]}
    demo_tree["curate"]["sources"] = [{"known": "omni-math", "where": where}]
    flat = config.fingerprint(config.Config.model_validate(demo_tree), "curate")
    assert "curate.sources.0.known" not in flat
    assert flat["curate.sources.0.path"].startswith("hf://datasets/KbsdJames/Omni-MATH@")
    assert flat["curate.sources.0.where"] == {"difficulty": {"min": 5, "max": None}, "source": ["a", "b"]}


def test_a_refused_secret_is_not_repeated(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    message = refusal(write(demo_tree, tmp_path), "serve.env={MY_API_KEY: sk-very-secret}")
    assert "sk-very-secret" not in message


def test_a_missing_key_is_named(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    del demo_tree["teacher"]["sampling"]
    assert refusal(write(demo_tree, tmp_path)) == "config key 'teacher.sampling' is missing: add it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"storage: {root: runs/x", "is no valid YAML"),
        (b"a: b: c", "is no valid YAML"),
        (b"a: !!python/object:os.system {}", "is no valid YAML"),
        (b"\xff\xfe\x00", "is no valid YAML"),
        (b"", "holds no sections"),
        (b"- 1\n- 2\n", "holds no sections"),
        (b"1: 2\n", "config key"),
    ],
)
def test_a_file_that_is_no_config_is_refused(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(text)
    assert said in refusal(str(tmp_path / "config.yaml"))


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_config_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refusal(str(tmp_path / name))


def test_overrides_reach_any_depth_and_the_last_one_wins(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    overrides = ["train.stage1.learning_rate=2e-4", "train.stage1.learning_rate=1.0e-3", "report.title='a=b: c'"]
    loaded = config.load(write(demo_tree, tmp_path), overrides)
    assert loaded.train.stage1.learning_rate == 1e-3
    assert loaded.report.title == "a=b: c"


def test_the_s3_endpoint_comes_from_the_environment_unless_the_config_has_one(
    demo_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(demo_tree, tmp_path)
    assert config.load(path).storage.endpoint is None
    for root in ("runs", "hf", "s3", "a:b", "s3://bucket/run", "file:///runs/x"):
        assert config.load(path, [f"storage.root={root}"]).storage.root == root
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert config.load(path).storage.endpoint == "http://127.0.0.1:1"
    assert config.load(path, ["storage.endpoint=http://127.0.0.1:2"]).storage.endpoint == "http://127.0.0.1:2"
    assert "config key 'storage' is 'runs/x'" in refusal(path, "storage=runs/x")


@pytest.mark.parametrize(
    ("stage", "override"),
    [
        ("distill", "distill.actors=7"),
        ("distill", "teacher.base_url=http://127.0.0.1:1/v1"),
        ("distill", "teacher.max_in_flight=3"),
        ("distill", "teacher.price={prompt: 9}"),
        ("train", "train.workers=2"),
        ("train", "train.zero_stage=3"),
        ("evaluate", "serve.port=8123"),
        ("curate", "storage.root=runs/other"),
    ],
)
def test_how_and_where_a_stage_runs_is_no_part_of_its_fingerprint(
    stage: str, override: str, demo_tree: dict[str, Any], tmp_path: Path
) -> None:
    path = write(demo_tree, tmp_path)
    assert config.fingerprint(config.load(path), stage) == config.fingerprint(config.load(path, [override]), stage)


@pytest.mark.parametrize(
    ("stage", "override", "key"),
    [
        ("curate", "curate.answer_types=[integer]", "curate.answer_types"),
        ("curate", "evaluate.benchmarks=[{name: b, path: other.jsonl}]", "evaluate.benchmarks.0.path"),
        ("reformat", "rewriter.model=other", "rewriter.model"),
        ("distill", "distill.keep=2", "distill.keep"),
        ("distill", "teacher.sampling.temperature=0.5", "teacher.sampling.temperature"),
        ("verify", "verify.training_text=response", "verify.training_text"),
        ("train", "train.stage2.epochs=9", "train.stage2.epochs"),
        ("serve", "serve.dtype=float32", "serve.dtype"),
        ("evaluate", "evaluate.samples=1", None),
        ("evaluate", "evaluate.budgets=[32]", "evaluate.budgets"),
        ("report", "report.title=x", "report.title"),
    ],
)
def test_what_decides_a_stages_result_is_in_its_fingerprint(
    stage: str, override: str, key: str | None, demo_tree: dict[str, Any], tmp_path: Path
) -> None:
    path = write(demo_tree, tmp_path)
    before = config.fingerprint(config.load(path), stage)
    after = config.fingerprint(config.load(path, [override]), stage)
    assert {name for name in before | after if before.get(name) != after.get(name)} == ({key} if key else set())


def test_every_stage_has_a_fingerprint_of_plain_values(demo_tree: dict[str, Any]) -> None:
    loaded = config.Config.model_validate(copy.deepcopy(demo_tree))
    for stage in config.STAGES:
        found = config.fingerprint(loaded, stage)
        assert found and yaml.safe_load(yaml.safe_dump(found)) == found


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "hf_token",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "my_apikey",
        "keys",
        "Authorization",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM",
        "VLLM_CPU_KVCACHE_SPACE",
        "MONKEY",
        "MAX_TOKENS",
        "KEYBOARD",
        "stop_token",
        "prompt_cache_key",
    ],
)
def test_names_that_tell_nothing_are_let_through(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teacher.base_url=https://me:hidden-word@host/v1", "'teacher': base_url"),
        ("teacher.base_url=https://host/v1?api_key=hidden-word&x=1", "'teacher': base_url"),
        ("storage.endpoint=https://host/?X-Amz-Signature=hidden-word", "'storage': endpoint"),
        ("serve.env={HF_TOKEN: hidden-word}", "'serve': env.HF_TOKEN"),
        ("serve.engine={hf: {auth: [{api_key: hidden-word}]}}", "'serve': engine.hf.auth.0.api_key"),
        ("teacher.sampling.extra={Authorization: hidden-word}", "'teacher.sampling': extra.Authorization"),
        ("serve.env={MY_CREDS: Bearer hidden-word}", "'serve': env.MY_CREDS"),
        ("serve.engine={api_key: {value: hidden-word}}", "'serve': engine.api_key"),
    ],
)
def test_secrets_are_refused_and_not_repeated(
    override: str, said: str, demo_tree: dict[str, Any], tmp_path: Path
) -> None:
    message = refusal(write(demo_tree, tmp_path), override)
    assert f"config section {said} holds a secret" in message and "environment" in message
    assert "hidden-word" not in message


@pytest.mark.parametrize(
    "override",
    ["teacher.api_key_env=sk-hidden-word", "serve.env=[HF_TOKEN=hidden-word]", "serve.env={A: [hidden-word]}"],
)
def test_what_may_be_a_secret_in_the_wrong_place_is_not_repeated(
    override: str, demo_tree: dict[str, Any], tmp_path: Path
) -> None:
    message = refusal(write(demo_tree, tmp_path), override)
    assert override.partition("=")[0] in message and "hidden-word" not in message


def test_a_url_with_a_harmless_query_is_let_through(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    path = write(demo_tree, tmp_path)
    assert config.load(path, ["report.title=see https://host/?design=2&token_count=3"]).report.title


def test_two_sources_of_one_name_are_refused(demo_tree: dict[str, Any], tmp_path: Path) -> None:
    demo_tree["curate"]["sources"] *= 2
    with pytest.raises(ConfigError, match="two sources have the name 's'"):
        config.load(write(demo_tree, tmp_path))
