"""What is made with a tuned delta: inverted latents, validation samples, and the files of the version."""

from __future__ import annotations

import json
from pathlib import Path

from registry.jobs import JobStore
from registry.registration import version_config
from services.tuning.tuner.control import Control
from services.tuning.tuner.memory import SMALLER, describe
from services.tuning.tuner.warm_tuner import WarmTuner
from tav import Clip, Delta, Latents, Sampler, Video, invert
from tav.errors import OutOfMemory
from tav.tuning import is_out_of_memory


class Results:
    """The results of one attempt's job, on the leader alone.

    Args:
        warm: the leader's tuner, whose network inverts and samples.
        control: the attempt's.
        store: keeps samples and pictures with the job's run.
    """

    def __init__(self, warm: WarmTuner, control: Control, store: JobStore) -> None:
        self._warm, self._control, self._store = warm, control, store
        self._job = control.job

    def invert_and_sample(self, clip: Clip, delta: Delta) -> tuple[Latents, list[Video]]:
        """Return the clip's inverted latents and a video of each validation prompt.

        Raises:
            OutOfMemory: the clip is too large for the device.
        """
        base = self._warm.base  # tuning in a precision of its own has loaded it anew
        try:
            with self._warm.sampling_net() as net:
                latents = invert(base, clip, delta, base.invert_config(), on_step=self._control.on_step, net=net)
                return latents, self._sample(Sampler(base, net), delta, latents)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = f"inverting and sampling {describe(clip)} do not fit the device's memory: {SMALLER}"
            raise OutOfMemory(message) from error

    def show(self, key: str, video: Video) -> None:
        """Add a picture of a video to MLflow's comparison of runs."""
        self._control.retry(lambda: self._store.log_sheet(self._job.id, key, video.frames))

    def write_version(self, folder: Path, clip: Clip, delta: Delta, latents: Latents, samples: list[Video]) -> Path:
        """Write a version's files into a folder, over those that are there; return the folder."""
        folder.mkdir(exist_ok=True)
        delta.save(folder / "delta.safetensors")
        latents.save(folder / "latents.safetensors")
        (samples[0] if samples else clip.video()).save(folder / "preview.mp4")
        config = version_config(self._warm.base, delta, latents) | {
            "samples": [
                {"prompt": prompt, "latents_sha256": video.latents_sha256}
                for prompt, video in zip(self._job.validation_prompts, samples, strict=True)
            ],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
        return folder

    def _sample(self, sampler: Sampler, delta: Delta, latents: Latents) -> list[Video]:
        videos = []
        for number, prompt in enumerate(self._job.validation_prompts, 1):
            videos.append(sampler.sample(prompt, delta=delta, latents=latents, on_step=self._control.on_step))
            self._log(videos[-1].encode(), f"samples/{number}.mp4")
            self.show(f"sample {number}", videos[-1])
        if videos:
            prompts = {f"{i}.mp4": prompt for i, prompt in enumerate(self._job.validation_prompts, 1)}
            self._log(json.dumps(prompts, indent=2, ensure_ascii=False).encode(), "samples/prompts.json")
        return videos

    def _log(self, data: bytes, name: str) -> None:
        self._control.retry(lambda: self._store.log_bytes(self._job.id, data, name))
