"""What Ray Serve LLM does on a node before an engine starts there: fetch the model from object storage.

A module of its own, for it imports vLLM.
"""

from pathlib import Path

from ray.llm._internal.common.callbacks.base import CallbackBase

from pipeline.storage import Place, fetch


class ModelOnNode(CallbackBase):
    """Makes the model's files local to every node that will hold a part of it."""

    async def on_before_node_init(self) -> None:
        """Where the files are local already, spare the task that would look for them: it imports vLLM once more."""
        self.ctx.run_init_node = not self._place.is_local

    def on_before_download_model_files_distributed(self) -> None:
        """Called on each node."""
        fetch(self._place, Path(self.kwargs["into"]))

    @property
    def _place(self) -> Place:
        return Place(self.kwargs["uri"], self.kwargs["endpoint"])
