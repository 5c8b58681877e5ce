"""The one client for teacher, judge and student: requests in, durable replies and counts out.

It speaks the OpenAI protocol over aiohttp, not through the `openai` package (benchmarks/teacher_throughput.py has both).
`requests` names what is asked, `client` asks, `wire` reads what comes back, `reach` says why nothing does, `traces` makes
rows of replies.
"""

from pipeline.chat.client import ChatClient, RequestError, all_of
from pipeline.chat.dispatch import Dispatcher
from pipeline.chat.gate import Gate
from pipeline.chat.reach import preflight
from pipeline.chat.requests import Request, chat_request, completion_request, continuation
from pipeline.chat.traces import Outcome, status_of, to_trace

__all__ = [
    "ChatClient",
    "Dispatcher",
    "Gate",
    "Outcome",
    "Request",
    "RequestError",
    "all_of",
    "chat_request",
    "completion_request",
    "continuation",
    "preflight",
    "status_of",
    "to_trace",
]
