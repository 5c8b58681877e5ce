"""What must not be written down: secrets in the text of URLs, and names that tell of a secret.

In: text. Out: the same text without user names, passwords and signatures inside URLs.
"""

import re

HIDDEN = "(hidden)"

# `token` is a word of its own here: TOKENIZERS_PARALLELISM and MAX_TOKENS tell nothing.
_SECRET_NAME = re.compile(r"secret|passw|credential|(?<![a-z])(?:api)?(?:keys?|token)(?![a-z])", re.IGNORECASE)
_URL_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_URL_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:key|token|secret|sig)[^=&\s]*=)[^&\s'\"]+")


def names_a_secret(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """The text without user names, passwords and keys inside URLs."""
    return _URL_SECRET.sub(rf"\1{HIDDEN}", _URL_USER.sub(HIDDEN, text))
