"""Ready-made problem sets and benchmarks: what `known:` in a config stands for.

In: nothing. Out: `TRAINING_SETS` and `BENCHMARKS`, the settings of a `config.Source` and a `config.Benchmark` by name.

Repositories, files, columns, licences, row counts and commits are as public pages of the hub and public code that pins
them give them; none was downloaded to check it, and a column or a count that is wrong is refused when a stage starts.
A pinned commit keeps a run repeatable: for newer data override `path`. The licence is what the set's card declares;
the licences of the contests and books that its problems come from are not certified.
"""

from collections.abc import Mapping
from typing import Any

_GSM8K = "hf://datasets/openai/gsm8k@740312add88f781978c0658806c59bc2815b9866/main"
_OMNI_MATH: Mapping[str, Any] = {
    "path": "hf://datasets/KbsdJames/Omni-MATH@0000b6bc8be4aa61655413073c3645ae4b3b30e8/test.jsonl",
    "columns": {"level": "difficulty", "subset": "source"},
}

TRAINING_SETS: Mapping[str, Mapping[str, Any]] = {
    "numina-math-cot": {  # 859 thousand rows; the answer is in the solution's box
        "path": "hf://datasets/AI-MO/NuminaMath-CoT@9d8d210c9f6a36c8f3cd84045668c9b7800ef517/data/train-*.parquet",
        "columns": {"answer": None, "subset": "source"},
        "license": "Apache-2.0",
    },
    "numina-math-1.5": {  # 896,215 rows; `where` may use problem_is_valid, solution_is_valid, question_type, synthetic
        "path": "hf://datasets/AI-MO/NuminaMath-1.5@1b05109f9e5c1ad06c0663519502416c30b300f8/data/train-*.parquet",
        "columns": {"subset": "source"},
        "license": "Apache-2.0",
    },
    "math-train": {  # 7,500 rows in a folder for each of seven subjects
        "path": "hf://datasets/EleutherAI/hendrycks_math@21a5633873b6a120296cce3e2df9d5550074f4a3/*/train-*.parquet",
        "columns": {"answer": None, "level": "level", "subset": "type"},
        "license": "MIT",
    },
    "omni-math": {**_OMNI_MATH, "license": "Apache-2.0"},
    "gsm8k-train": {  # 7,473 rows; the solution ends with `#### 72`
        "path": f"{_GSM8K}/train-*.parquet",
        "columns": {"problem": "question", "answer": None, "solution": "answer"},
        "license": "MIT",
    },
    "deepscaler": {  # 40.3 thousand rows
        "path": "hf://datasets/agentica-org/DeepScaleR-Preview-Dataset@b6ae8c60f5c1f2b594e2140b91c49c9ad0949e29"
        "/deepscaler.json",
        "license": "MIT",
    },
}

BENCHMARKS: Mapping[str, Mapping[str, Any]] = {
    "math500": {
        "path": "hf://datasets/HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be/test.jsonl",
        "columns": {"level": "level", "subset": "subject"},
        "problems": 500,
    },
    "aime2024": {
        "path": "hf://datasets/HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a/data/train-*.parquet",
        "problems": 30,
    },
    "aime2025": {
        "path": "hf://datasets/math-ai/aime25@563bb8404243c5f09de6ec262f2db674fe5bce9b/test.jsonl",
        "problems": 30,
    },
    "amc23": {
        "path": "hf://datasets/math-ai/amc23@80815d37005feb82cd7f8fbc6901d5d3eff43057/test-*.parquet",
        "columns": {"problem": "question"},
        "problems": 40,
    },
    "gsm8k": {
        "path": f"{_GSM8K}/test-*.parquet",
        "columns": {"problem": "question"},
        "problems": 1319,
    },
    "minerva-math": {
        "path": "hf://datasets/math-ai/minervamath@ee46ddc498933b1977577953250ca5c66be64f96/test.jsonl",
        "columns": {"problem": "question"},
        "problems": 272,
    },
    "omni-math": {**_OMNI_MATH, "problems": 4428},  # some train on it: only here where a config names it
    "olympiadbench": {  # open-ended, text only, mathematics, English, competitions
        "path": "hf://datasets/Hothan/OlympiadBench@91184b52131e7fc9455fef848035173aea8cc01a"
        "/OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet",
        "columns": {"problem": "question", "answer": "final_answer", "subset": "subfield"},
        "problems": 674,
    },
}
