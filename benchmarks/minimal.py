"""The least that a config must hold, for benchmarks of one stage."""

from pathlib import Path
from typing import Any

import yaml


def config(file: Path, root: Path, **sections: Any) -> Path:
    """Write the config of a run that lives in `root`; `sections` take the place of those that are here."""
    model = {"model": "none", "base_url": "http://127.0.0.1:9/v1", "api_key_env": None, "sampling": {"max_tokens": 1}}
    sft = {"max_length": 128, "epochs": 1, "learning_rate": 1e-5, "rows_per_step": 2}
    least = {
        "storage": {"root": str(root)},
        "rewriter": model,
        "teacher": model,
        "curate": {"sources": [{"name": "none", "path": "none.jsonl", "license": "MIT"}], "benchmarks": []},
        "train": {"model": "none", "stage1": sft, "stage2": sft},
        "serve": {"max_model_len": 512},
        "evaluate": {"benchmarks": [{"name": "none", "path": "none.jsonl"}], "budgets": [64]},
    }
    file.write_text(yaml.safe_dump({**least, **sections}))
    return file
