"""Finding secrets where none may stand: configs are stored, logged and published.

In: the value of a setting. Out: where in it a secret stands.
"""

import re
from typing import Any

_SECRET_NAME = re.compile(
    r"secret|passw|credential|authorization|^(?:keys?|token)$|(?<![a-z])(?:api|access|auth|private|hf|bearer)[_-]?(?:key|token)s?$",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:KEY|TOKEN)$")
"""In capitals any key or token: MY_SERVICE_TOKEN; not `stop_token`, which is a setting."""
_SECRET_TEXT = re.compile(
    r"://[^/\s@'\"]+@|[?&](?:[^=&\s]*[-_])?(?:api)?(?:key|token|secret|sig|signature|credential)=[^&\s]"
    r"|\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|Bearer \S{8,})",
    re.IGNORECASE,
)
"""URLs with a password or a signature, and the keys of well-known services."""


def find_secret(value: Any, path: str = "") -> str | None:
    """The dotted path to the first value that is or holds a secret, or has a secret's name; None without one."""
    if value and names_a_secret(path.rpartition(".")[2]):
        return path
    if isinstance(value, str):
        return path if _SECRET_TEXT.search(value) else None
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    found = (find_secret(inner, f"{path}.{name}" if path else str(name)) for name, inner in items)
    return next((secret for secret in found if secret is not None), None)


def names_a_secret(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret."""
    return bool(_SECRET_NAME.search(name) or _SECRET_VARIABLE.search(name))
