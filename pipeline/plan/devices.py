"""What GPUs have, by the names that Ray gives them: memory, and bf16 operations a second without sparsity (data sheets)."""

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Device:
    """`memory` in bytes, `flops` bf16 operations a second."""

    memory: float
    flops: float


DEVICES = {
    "A100-40G": Device(40 * GB, 312e12),
    "A100-80G": Device(80 * GB, 312e12),
    "A100": Device(80 * GB, 312e12),
    "L40S": Device(48 * GB, 362e12),
    "H100": Device(80 * GB, 989e12),
    "H200": Device(141 * GB, 989e12),
    "H20": Device(96 * GB, 148e12),
    "B200": Device(180 * GB, 2250e12),
}


def named(text: str) -> Device | None:
    """The device whose name a text contains, as the driver tells it (`NVIDIA H100 80GB HBM3`)."""
    found = [name for name in DEVICES if name in text]
    return DEVICES[max(found, key=len)] if found else None
