"""How names and measured shares are written, on the page and in the terminal alike; the rest is left to `figures`.

In: values. Out: text. Shares come as 0 to 1 and are written in percent or points.
"""

LABELS = {
    "base": "Base",
    "stage1": "Stage 1",
    "stage2": "Stage 2",
    "stage2_alone": "Stage 2 alone",
    "final_answer": "Final answer",
    "last_number": "Last number in the text",
    "budget_forced": "Budget-forced",
    "natural": "Natural length",
    "level": "Level",
    "subset": "Subject",
}


def label(name: str) -> str:
    """A name as a reader sees it; models of others keep theirs."""
    return LABELS.get(name, name)


def inside(name: str) -> str:
    """The same in the middle of a sentence."""
    known = LABELS.get(name)
    return known[0].lower() + known[1:] if known else name


def interval(low: float, high: float, digits: int = 0) -> str:
    """[55, 70], in percent or points."""
    return f"[{_number(100 * low, digits)}, {_number(100 * high, digits)}]"


def points(share: float, digits: int = 0) -> str:
    """+59: a difference in percentage points."""
    text = _number(100 * share, digits)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def p_value(value: float) -> str:
    """p = 0.03, p < 0.001."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"
