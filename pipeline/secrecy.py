"""Finding secrets where none may stand: configs are stored, logged and published.

In: the value of a setting. Out: where in it a secret stands.
"""

import re
from typing import Any

# `token` is a word of its own here: TOKENIZERS_PARALLELISM and MAX_TOKENS tell nothing.
_SECRET_NAME = re.compile(
    r"secret|passw|credential|authorization|(?<![a-z])(?:api)?(?:keys?|token)(?![a-z])", re.IGNORECASE
)
_URL_USER = re.compile(r"://[^/\s@'\"]+@")
_URL_SECRET = re.compile(r"[?&][^=&\s]*(?:key|token|secret|sig)[^=&\s]*=[^&\s]", re.IGNORECASE)


def find_secret(value: Any, path: str = "") -> str | None:
    """The dotted path to the first text that is a URL with a secret, or that has a secret's name; None without one."""
    if isinstance(value, str):
        named = names_a_secret(path.rpartition(".")[2])
        return path if named or _URL_USER.search(value) or _URL_SECRET.search(value) else None
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    found = (find_secret(inner, f"{path}.{name}" if path else str(name)) for name, inner in items)
    return next((secret for secret in found if secret is not None), None)


def names_a_secret(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret."""
    return _SECRET_NAME.search(name) is not None
