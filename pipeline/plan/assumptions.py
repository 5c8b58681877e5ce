"""What a plan takes for granted where nothing was counted: each a number, and where it comes from.

In: nothing. Out: constants, each with its source under it; a plan prints those that it used. Where a guess is one, it says so.
"""

from pipeline.plan.estimate import Estimate, exactly

TOKENS_PER_CHAR = Estimate(1 / 3.9, 1 / 2.7, 1 / 2.3)
"""Of mathematics in SmolLM2's tokenizer: GSM8K, MATH and AIME, solutions full of formulas."""
PROBLEM_CHARS = exactly(260)
"""Of a problem: the mean of 39,808 of DeepScaleR."""
SOLUTION_CHARS = Estimate(300, 580, 990)
"""Of a solution: the means of GSM8K, of MATH, and of Omni-MATH."""
KEPT = Estimate(0.5, 0.85, 1.0)
"""Of a set's rows, what curation keeps: IMO-Bench 0.59, MATH 0.80, DeepScaleR 0.90, GSM8K 1.00 (benchmarks/results/curate.md)."""
PROBLEMS = 10_000
"""Where no set can be read and `--problems` is not given."""
THOUGHT_TOKENS = Estimate(944, 3000, 9903)
"""Of a teacher's answer: o1-mini's on MATH500 and on AIME2024 (arXiv 2411.16489, table 1), and between them."""
RIGHT = Estimate(0.7, 0.8, 0.9)
"""Of a teacher's answers, those that are right: o1-mini's on AIME2024 and on MATH500, and between them (the same table)."""
REWRITTEN = Estimate(1.0, 1.5, 3.0)
"""Of a rewritten solution's length, in that of the original: `reformat.min_ratio` asks for 1; the rest is a guess."""
FAULTY = Estimate(0.0, 0.1, 1.0)
"""Of rewritings, those that a check finds fault with: none or all; the demo's rewriter, by plan, 0.07."""
USABLE = Estimate(0.5, 0.95, 1.0)
"""Of problems, those whose rewriting passes in the end: 0.97 in the demo; the span is a guess."""
JUDGED = Estimate(0.0, 0.05, 1.0)
"""Of traces, those that the grader cannot read: none or all; between them a guess."""
OPINION_TOKENS = Estimate(1, 4, 4)
"""Of a judge's answer: one word; a judge that thinks takes more."""
JUDGE_PROMPT_TOKENS = 130
"""Of a judge's prompt without its problem."""
REWRITE_PROMPT_TOKENS = 70
"""Of a rewriter's prompt without its problem and solution."""
ASKED_PROMPT_TOKENS = Estimate(20, 24, 80)
"""Of a teacher's and a student's prompt without its problem: the request for a box, and what a chat template adds. With
`distill.long_thought_prompt` 80."""
BENCHMARK = Estimate(30, 200, 1000)
"""Problems of a benchmark that cannot be read and whose `problems` is not set: AIME2024 has 30, MATH500 500."""
ANSWER_TOKENS = Estimate(0.05, 0.5, 1.0)
"""Of a model nothing is known of: its answers' length, in that of the largest budget."""
AS_LEARNED = Estimate(0.7, 1.0, 1.3)
"""Of a trained model's answers, their length in that of what it learned from: 0.99 and 0.98 in the demo. The span is a guess."""
FORCED_TOKENS = 4
"""What a forced answer takes: 2.7 to 4.3 for three models of the demo."""
FORCED_PROMPT_TOKENS = 9
"""What asks for one."""

SECONDS_PER_TOKEN = Estimate(1 / 100, 1 / 50, 1 / 20)
"""In one answer of a model behind an API, all waiting included: a guess. `--probe` measures it."""
BATCH_S = Estimate(3600, 6 * 3600, 24 * 3600)
"""A provider's batch: promised within a day, often sooner."""
CLIENT_REQUESTS_S = 700
"""Requests a second of an actor: 1,396 of two on two cores (benchmarks/results/teacher.md)."""
GRADED_S = Estimate(1 / 2000, 1 / 1000, 1 / 500)
"""Seconds in which an actor of `verify` grades a trace: two grade 1,087 to 4,073 a second (benchmarks/results/grading.md)."""
WEIGHED_TOKEN_S = Estimate(0.2e-6, 0.6e-6, 1.2e-6)
"""Seconds in which it weighs a token of a trace against the others of a problem: 5.5 ms for 9,000. Of right traces only, so it may be less."""
CURATED_S = 1700
"""Rows a second of an actor of `curate`: 3,363 of two (benchmarks/results/curate.md)."""
RAY_S = 20
"""Ray's own start, on two cores."""
ACTORS_S = Estimate(4, 8, 20)
"""The start of a stage's actors, on two cores: they import what they need. In the demo 6 to 10, on a slower CPU 9 to 16."""
PACKING_S = Estimate(10, 20, 60)
"""The start of the actors that pack, on two cores: they import torch and transformers."""
SERVED_SHARE = 0.08
"""Of a GPU's operations, what generation gets, at two for each weight and token: a guess, as is SERVED_SPAN.
`--probe` measures it."""
SERVED_SPAN = Estimate(0.4, 1.0, 2.7)
START_S = Estimate(60, 180, 900)
"""Until a model is served, or a group of workers has loaded one: a minute on two cores for 135 million weights; on a cluster
with hundreds of GB to fetch the rest is a guess. `--probe` measures it."""
SERVE_STARTS = 1.6
"""Ray Serve's start of a model in that of vLLM alone: two processes import vLLM, one after the other (two cores)."""
SERVE_SHARE = 0.95
"""Of vLLM's own tokens a second, what comes through Ray Serve on two cores (benchmarks/results/evaluate.md)."""

TEXT_BYTES = 1.0
"""Bytes of Parquet for a token of text; this and the next four measured on 1.3 million tokens of long thoughts (AIME 2025)."""
REPLY_BYTES = 2.6
"""Of the response store, for a token of an answer."""
PACKED_BYTES = 2.2
"""Of packed rows, for a token."""
GENERATION_BYTES = 17.0
"""For a token of a student's answer, in the response store and in the table: its id and its place in the text too."""
ROW_BYTES = 450
"""Beside the text, for each request: ids, counts, status, in the response store and in the tables."""
STATE_BYTES = 12
"""Of a checkpoint, for a trained weight beside it: its float32 master, and Adam's two moments."""
UNPACKED_BYTES = 2
"""For a weight of a GGUF file, unpacked as bfloat16."""
