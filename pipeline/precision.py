"""The type that a model computes in, where the settings leave it to the machine (`auto`)."""


def computed(dtype: str, gpus: float) -> str:
    """`auto` is bfloat16 on GPUs, and on CPUs that multiply matrices of it (AVX-512, AMX, or Arm's own instructions).

    On others float32: they emulate bfloat16, eleven times slower (benchmarks/results/train.md).
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if gpus or _cpu_multiplies() else "float32"


def _cpu_multiplies() -> bool:
    import torch  # some seconds, which who names a type does not spend

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
