"""Math-Verify as its README has it: the whole response is parsed, and compared with the gold answer.

Source: github.com/huggingface/Math-Verify; lm-evaluation-harness reports the same as `math_verify` of minerva_math.
"""

from pipeline.grading.child import Judged

LIMIT_S = 10.0
"""Its own limits are 5 seconds for reading and 5 for comparing."""


def judge(gold: str, response: str) -> Judged:
    """The verdict of Math-Verify, without its time-outs: the child has one."""
    from math_verify import parse, verify

    wanted = parse(gold if "$" in gold or "\\boxed" in gold else f"${gold}$", parsing_timeout=None)
    given = parse(response, parsing_timeout=None)
    if not wanted or not given:
        return "unparsable", "answer" if wanted else "gold", None
    same = verify(wanted, given, timeout_seconds=None)
    return "correct" if same else "incorrect", "math_verify", str(given[-1])
