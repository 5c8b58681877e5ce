"""The model card of a trained student: README.md of its folder, as the Hugging Face hub reads it.

In: the settings, the stage, its steps. Out: Markdown.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.config import Train
from pipeline.markdown import grid
from pipeline.records import Step, TrainStage

LEARNED: dict[TrainStage, str] = {
    "stage1": "solutions rewritten step by step",
    "stage2": "the teacher's verified long thoughts, after stage 1",
    "stage2_alone": "the teacher's verified long thoughts, without stage 1",
}
USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
chat = [{"role": "user", "content": "What is 1+1?"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=1024)[0]))
```"""


def text(settings: Train, stage: TrainStage, steps: Sequence[Step]) -> str:
    """The card."""
    optimization = settings.optimization(stage)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["longthought", "distillation", "reasoning", "sft"],
    }
    if "://" not in settings.model:
        front["base_model"] = settings.model
    facts = {
        "base model": settings.model,
        "learned from": LEARNED[stage],
        "steps": f"{len(steps):,} of {optimization.rows_per_step} packed sequences of {optimization.max_length:,} tokens",
        "tokens": f"{sum(step.tokens for step in steps):,}, of which the loss counts {sum(step.target_tokens for step in steps):,}",
        "epochs": str(optimization.epochs),
        "learning rate": f"{optimization.learning_rate:g}, warm-up {optimization.warmup:g} of the steps, then a cosine",
        "weights": f"LoRA of rank {settings.lora.rank}, merged" if settings.lora else "all trained",
        "computed in": settings.dtype,
        "loss": f"{steps[0].loss:.4f} at the first step, {steps[-1].loss:.4f} at the last" if steps else "none",
    }
    if settings.rope:
        facts["positions"] = f"{settings.rope.positions:,} (RoPE base {settings.rope.theta:,.0f})"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {stage} of a long-thought student",
        "",
    ]
    lines += [
        *grid(("", "value"), facts.items()),
        "",
        "Ask it with its chat template, which is that of its training:",
        "",
        USE,
        "",
    ]
    return "\n".join(lines)
