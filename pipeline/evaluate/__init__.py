"""Stage 7: accuracy against tokens (paper, section 3.2), on two curves that are never mixed.

`generate` asks a model once for each problem and sample; `budgets` reads that one answer at every token budget and
grades it under every convention: `conventions`, ours and those of other `harnesses`.
"""
