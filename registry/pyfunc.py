"""What `mlflow.pyfunc.load_model("models:/man-skiing@production")` loads: a model version that samples.

    model.predict([{"prompt": "spider man is skiing"}], params={"guidance_scale": 7.5})

returns one dict per row with `video` (the encoded bytes), `format`, `fps`, `num_frames` and `size`. Over HTTP, the bytes are
base64:

    tav platform env -- mlflow models serve -m models:/man-skiing@production --env-manager local --port 5001
    curl localhost:5001/invocations -H 'Content-Type: application/json' \
         -d '{"inputs": {"prompt": ["spider man is skiing"]}, "params": {"guidance_scale": 7.5}}'

Fields that the signature (`registry.signature`) does not know are left out by MLflow, with a warning. The base is the one that
the delta names, or `model_config={"base": …}` at loading; a base with another fingerprint is refused.
"""

from __future__ import annotations

import threading
from math import isnan
from pathlib import Path
from typing import Any

import torch

from tav.base import Base
from tav.delta import Delta
from tav.errors import InvalidConfig
from tav.latents import Latents
from tav.sampling import Sampler


class VersionModel:
    """A version's delta and latents on its base, which is loaded once, at the first prediction."""

    def __init__(self, folder: Path, base: str | None = None, device: str | None = None) -> None:
        self.delta = Delta.load(folder / "delta.safetensors")
        self.latents = Latents.load(folder / "latents.safetensors")
        self._base = base or self.delta.meta.origin.base
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._sampler: Sampler | None = None
        self._loading = threading.Lock()  # MLflow's server predicts in threads

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Sample one video per row.

        Args:
            model_input: a DataFrame, or dicts, with `prompt` and optionally `format` (mp4, gif, webm),
                `use_inverted_latents` and the fields of `tav.SampleConfig`.
            params: fields for all rows; a row's own take precedence.
        """
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        return [self._sample({**_present(params or {}), **_present(row)}) for row in rows]

    def _sample(self, row: dict[str, Any]) -> dict[str, Any]:
        if not row.get("prompt"):
            raise InvalidConfig("A row without a prompt: say in its `prompt` what the video shall show.")
        prompt, file_format = row.pop("prompt"), row.pop("format", "mp4")
        latents = self.latents if row.pop("use_inverted_latents", True) else None
        sampler = self._ready()
        config = sampler.base.sample_config(**row)
        video = sampler.sample(prompt, delta=self.delta, latents=latents, config=config)
        frames, height, width, _ = video.frames.shape
        return {
            "video": video.encode(file_format),
            "format": file_format,
            "fps": video.fps,
            "num_frames": frames,
            "size": (width, height),
        }

    def _ready(self) -> Sampler:
        with self._loading:
            if self._sampler is None:
                dtype = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
                self._sampler = Sampler(Base.load(self._base, device=self._device, dtype=dtype))
            return self._sampler


def _present(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the cells that a DataFrame or MLflow's defaults fill: None, NaN, an empty list."""
    return {key: value for key, value in row.items() if not _empty(value)}


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and isnan(value)) or (isinstance(value, list) and not value)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> VersionModel:
    """Load the version that MLflow downloaded to `path`; MLflow's entry point."""
    return VersionModel(Path(path), **(model_config or {}))
