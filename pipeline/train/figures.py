"""What a step took: seconds by phase, memory. In: the phases of a step as they pass. Out: numbers for a `Step`."""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.plan import devices


class Clock:
    """Seconds by phase. On a GPU by its own events, which do not make it wait."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A part of the step."""
        if self._cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
        else:
            started = time.monotonic()
            yield
            self._seconds[name] += time.monotonic() - started

    def read(self) -> dict[str, float]:
        """All phases so far, and begin anew. Waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
            for name, start, end in self._events:
                self._seconds[name] += start.elapsed_time(end) / 1000
            self._events = []
        seconds, self._seconds = self._seconds, defaultdict(float)
        return dict(seconds)


def peak_flops(device: torch.device) -> float | None:
    """bf16 operations a second of a device, at best; None for one that is not known."""
    if device.type != "cuda":
        return None
    known = devices.named(torch.cuda.get_device_name(device))
    return known.flops if known else None


def peak_memory(device: torch.device) -> int:
    """Most bytes this process held at once: of the GPU's memory, or without one of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
