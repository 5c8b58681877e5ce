"""What the benchmarks of serving share: vLLM's own server, in a process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

MODEL = "base"
ENGINE: Mapping[str, Any] = {"enforce_eager": True, "max_num_seqs": 64, "enable_prompt_tokens_details": True}
"""Engine arguments of all benchmarks."""


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def vllm(model: Path, folder: Path, engine: Mapping[str, Any]) -> Iterator[str]:
    """vLLM's OpenAI server with a model, from its first answer on: its URL. It can be told to forget its prefixes."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--served-model-name",
        MODEL,
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in {**ENGINE, **engine}.items():
        command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    log = folder / "vllm.log"
    with log.open("w") as stream:
        environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1"}
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until a server answers. RuntimeError where it ends before."""
    while True:
        try:
            urlopen(url, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-3000:]) from None
            time.sleep(1)
