"""What `mlflow.pyfunc.load_model("models:/man-skiing@production")` loads: a model version that samples.

    model.predict([{"prompt": "spider man is skiing", "guidance_scale": 7.5}])

answers one dict per row with `video` (the encoded bytes), `format`, `fps` and `size`. The base is named in the version's
`config.json`; a base with another fingerprint is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tav


class VersionModel:
    """A version's files and, from the first row on, its base."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.delta = tav.Delta.load(folder / "delta.safetensors")
        self.latents = tav.Latents.load(folder / "latents.safetensors")
        self._base: tav.Base | None = None

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Sample one video per row.

        Args:
            model_input: A DataFrame, or dicts, with `prompt` and, as wanted, fields of `VideoCreate`.
            params: Fields for all rows; a row's own win.
        """
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        return [self._sample({**(params or {}), **{k: v for k, v in row.items() if v is not None}}) for row in rows]

    def _sample(self, row: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


def _load_pyfunc(path: str) -> VersionModel:
    """MLflow's entry point: `path` is the downloaded version."""
    return VersionModel(Path(path))
