"""What tests of several modules share: an S3 service, a grader, the development data."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from servers import REPO, child_server, free_port

from pipeline.grading import Grader
from pipeline.storage import Place

BUCKET = "bucket"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a real S3 protocol (moto) with one bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with child_server(command, f"http://127.0.0.1:{port}", env=dict(os.environ)):
            s3 = pyarrow.fs.S3FileSystem(
                endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            s3.create_dir(BUCKET)
            yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    """The URL of Google's protocol with one bucket, for all who ask for `gs://`."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, str(Path(__file__).with_name("gcs_server.py")), url.rsplit(":")[-1], BUCKET]
    with pytest.MonkeyPatch.context() as patch, child_server(command, url, env=dict(os.environ)):
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        yield url


@pytest.fixture(params=["local", "s3", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place: on disk, on S3, on Google's storage."""
    if request.param == "local":
        return Place(str(tmp_path / "run"))
    if request.param == "gcs":
        request.getfixturevalue("gcs")
        return Place(f"gs://{BUCKET}/{tmp_path.name}")
    return Place(f"s3://{BUCKET}/{tmp_path.name}", request.getfixturevalue("s3_endpoint"))


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    """A warm grader."""
    with Grader() as shared:
        shared.grade("x", "\\boxed{y}")
        yield shared


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the repository."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds public data that is no part of the repository")
    return folder


@pytest.fixture
def demo_tree() -> dict[str, Any]:
    """The tree of a config as YAML gives it, small and complete."""
    model = {
        "model": "teacher",
        "base_url": "http://127.0.0.1:9/v1",
        "api_key_env": None,
        "sampling": {"max_tokens": 64},
    }
    sft = {"max_length": 128, "epochs": 1, "learning_rate": 1e-4, "rows_per_step": 2}
    tree = {
        "storage": {"root": "runs/test"},
        "rewriter": model,
        "teacher": model,
        "curate": {"sources": [{"name": "s", "path": "problems.jsonl", "license": "MIT"}]},
        "train": {"model": "some/model", "stage1": sft, "stage2": sft},
        "serve": {"max_model_len": 512},
        "evaluate": {"benchmarks": [{"name": "b", "path": "heldout.jsonl"}], "budgets": [32, 64]},
    }
    return dict(json.loads(json.dumps(tree)))
