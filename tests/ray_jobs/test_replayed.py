"""A run serves recorded traces itself, for every endpoint that names them."""

import json
import urllib.error
import urllib.request

import pytest
import small
from local_servers import free_port

from ray_jobs.teacher import DIRECTLY, replayed


@pytest.mark.parametrize("key", ["rewriter", "teacher", "verify.judge", "evaluate.endpoint"])
def test_an_endpoint_with_a_replay_answers_while_the_run_lasts(sums, key):
    url = f"http://127.0.0.1:{free_port()}/v1"
    endpoint = {
        "model": "teacher", "base_url": url, "api_key_env": None, "replay": str(sums / "traces.jsonl"),
        "sampling": {"max_tokens": 160},
    }  # fmt: skip
    value = {"endpoint": endpoint} if key == "verify.judge" else endpoint
    settings = [*small.overrides(sums, str(sums / "run"), "http://127.0.0.1:9/v1"), f"{key}={json.dumps(value)}"]
    with replayed(small.config(settings)), DIRECTLY.open(f"{url}/models", timeout=5) as answer:
        assert "teacher" in answer.read().decode()
    with pytest.raises(urllib.error.URLError):
        DIRECTLY.open(f"{url}/models", timeout=5)
