"""What a job's next attempt needs, under the job's own prefix in S3: its checkpoint and its memory setting.

A checkpoint is one safetensors object with the tuned tensors, the optimizer's state and the step. It belongs to the job, not to
the tuner, so any tuner can go on with it; it is deleted when the job ends.
"""

from __future__ import annotations

import json

from safetensors.torch import load, save

from registry.errors import ObjectMissing
from registry.objects import ObjectStore
from tav.memory import MemorySetting
from tav.tuning import TuneState

_STEP = "step"


class CheckpointStore:
    """The checkpoint of one job."""

    def __init__(self, objects: ObjectStore, job_id: str) -> None:
        self._objects = objects
        self._key = f"resume/{job_id}/state.safetensors"
        self._setting_key = f"resume/{job_id}/memory.json"

    def save(self, state: TuneState) -> None:
        """Replace the checkpoint."""
        tensors = {f"tuned/{n}": t for n, t in state.tuned.items()} | {f"optimizer/{n}": t for n, t in state.optimizer.items()}
        self._objects.put_bytes(save(tensors, metadata={_STEP: str(state.step)}), self._key)

    def load(self) -> TuneState | None:
        """Return the checkpoint; None where the job has none."""
        try:
            data = self._objects.get_bytes(self._objects.uri(self._key))
        except ObjectMissing:
            return None
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = load(data)
        return TuneState(int(header["__metadata__"][_STEP]), _under("tuned/", tensors), _under("optimizer/", tensors))

    def save_setting(self, setting: MemorySetting) -> None:
        """Keep the memory setting to work in from now on, also after a crash: another would give other digits."""
        self._objects.put_bytes(setting.model_dump_json().encode(), self._setting_key)

    def load_setting(self) -> MemorySetting | None:
        """Return the setting saved last; None where there is none."""
        try:
            return MemorySetting.model_validate_json(self._objects.get_bytes(self._objects.uri(self._setting_key)))
        except ObjectMissing:
            return None

    def delete(self) -> None:
        """Delete checkpoint and setting."""
        self._objects.delete_prefix(self._key.rsplit("/", 1)[0] + "/")


def _under(prefix: str, tensors: dict) -> dict:  # type: ignore[type-arg]
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
