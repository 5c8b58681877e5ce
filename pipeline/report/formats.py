"""How numbers and names are written, on the page and in the terminal alike.

In: values. Out: text. Shares come as 0 to 1 and are written in percent or points.
"""

LABELS = {
    "base": "Base",
    "stage1": "Stage 1",
    "stage2": "Stage 2",
    "final_answer": "Final answer",
    "last_number": "Last number in the text",
    "budget_forced": "Budget-forced",
    "natural": "Natural length",
}


def label(name: str) -> str:
    """A name as a reader sees it; models of others keep theirs."""
    return LABELS.get(name, name)


def inside(name: str) -> str:
    """The same in the middle of a sentence."""
    known = LABELS.get(name)
    return known[0].lower() + known[1:] if known else name


def percent(share: float, digits: int = 0) -> str:
    """63%."""
    return f"{100 * share:.{digits}f}%"


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


def count(value: float) -> str:
    """12,345."""
    return f"{value:,.0f}"


def dollars(value: float) -> str:
    """$12.30; small sums keep two significant digits."""
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"


def duration(seconds: float) -> str:
    """48 s, 3 min 12 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
