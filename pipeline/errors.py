"""The exceptions a caller may want to tell apart.

    LongthoughtError
    ├── UserError           the user can mend it: one line on stderr, exit status 2
    │   ├── ConfigError     a key, a type or a value of the config
    │   ├── DataError       a file that is missing, lacks a column, or is empty
    │   ├── EndpointError   a model endpoint that refuses us or cannot be reached
    │   ├── BudgetError     the dollars or tokens that the config allows are spent
    │   ├── ResourceError   the cluster cannot give what a stage asks for
    │   └── StoppedError    the user asked for an end: exit status 130
    └── InvariantError      a promise of ours is broken (rows vanished, ...): a bug, exit status 1

Bad *data* (a truncated answer, an unparsable one) is a value in a row and never an exception.
Every message says what is wrong, the value, and what to do. All pickle: they cross Ray processes.
"""


class LongthoughtError(Exception):
    """Base of all exceptions raised on purpose."""


class UserError(LongthoughtError):
    """Something the user can mend. The message is one line."""


class ConfigError(UserError):
    """A config key, type or value is wrong, or differs from the one an artifact was made with."""


class DataError(UserError):
    """An input file or table is missing, malformed or empty."""


class EndpointError(UserError):
    """A model endpoint refuses every request (key, model name) or cannot be reached."""


class BudgetError(UserError):
    """No request may be sent any more; what was bought is kept."""


class ResourceError(UserError):
    """The cluster lacks the CPUs or GPUs a stage asks for."""


class StoppedError(UserError):
    """The user asked for an end; the next run goes on from there."""

    def __init__(self, message: str = "interrupted: the next run goes on from here") -> None:
        super().__init__(message)


class InvariantError(LongthoughtError):
    """A guarantee of the system does not hold."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
