"""A teacher that replays recorded answers over the OpenAI protocol, with limits and faults on request.

In: recorded traces. Out: an HTTP server with `/v1/chat/completions` (streaming too), `/v1/models`, `/stats`: what it
served, and to how many requests it gave an answer more than once, and `/answered`: how often to each. It serves the demo,
tests, benchmarks, and reruns without paying. `recordings` finds an answer, `answers` gives it its form, `limits` counts as
providers do, `server` serves.
"""

from pipeline.replay.limits import Limiter
from pipeline.replay.recordings import Recordings, load_recordings
from pipeline.replay.server import FAULTS, Behaviour, ReplayTeacher, check_faults, serve

__all__ = [
    "FAULTS",
    "Behaviour",
    "Limiter",
    "Recordings",
    "ReplayTeacher",
    "check_faults",
    "load_recordings",
    "serve",
]
