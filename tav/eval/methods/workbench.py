"""One base with a warm tuner and sampler, and what has been made of each clip."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tav.base import Base
from tav.clip import Clip
from tav.config import AttentionMode
from tav.delta import Delta, DeltaMeta, Origin
from tav.errors import InvalidConfig
from tav.eval.layout import read_clip
from tav.eval.suite import SuiteClip
from tav.inflation import inflate
from tav.inversion import invert
from tav.latents import Latents
from tav.sampling import Sampler
from tav.tuning import OnStep, Tuner

if TYPE_CHECKING:
    from tav.eval.methods.text_to_video import TextToVideoModel


class Workbench:
    """Tunes and inverts a clip once for all methods that need it.

    Args:
        base: the one all methods work on, with its recommended settings.
        folder: where deltas and inverted latents are kept. What is already there is used, so a run that was stopped tunes no
            clip again, if it was made with the same base, clip and settings.
        on_step: called after every step of tuning and inversion; what it raises stops the work.
        text_to_video: what the method `cogvideox` samples.
    """

    def __init__(
        self, base: Base, folder: Path, on_step: OnStep | None = None, text_to_video: TextToVideoModel | None = None
    ) -> None:
        self.base, self.folder, self.on_step, self._text_to_video = base, folder, on_step, text_to_video
        self.sampler = Sampler(base)
        self._tuner: Tuner | None = None
        self._clip: tuple[SuiteClip, Clip] | None = None

    @property
    def text_to_video(self) -> TextToVideoModel:
        """The text-to-video model.

        Raises:
            InvalidConfig: none was named.
        """
        if self._text_to_video is None:
            raise InvalidConfig(
                "cogvideox needs a text-to-video model: name one, such as zai-org/CogVideoX-2b, or leave it out"
            )
        return self._text_to_video

    def clip(self, clip: SuiteClip) -> Clip:
        """Read the clip's frames, as the base recommends and the clip's options override."""
        if self._clip is None or self._clip[0] != clip:
            self._clip = clip, read_clip(clip, self.base.clip_config())
        return self._clip[1]

    def tuned(self, clip: SuiteClip, seed: int, attention: AttentionMode | None = None) -> Delta:
        """Return the delta of a tuning job; tuned now unless it is stored."""
        config, source = self.base.tune_config(seed=seed), self.clip(clip)
        modes = self.base.net_config(attention=attention)
        path = self._path(clip, f"seed{seed}-{modes.attention}-{_digest(config.model_dump_json(), modes.model_dump_json())}")
        if not path.exists():
            self._tuner = self._tuner or Tuner(self.base, config=config)
            delta = self._tuner.tune(
                source, config, attention=modes.attention, group_norm=modes.group_norm, on_step=self.on_step
            )
            _write(delta, path)
        return Delta.load(path)

    def untuned(self, clip: SuiteClip) -> Delta:
        """Return the delta of a job that took no step: the base's own queries, temporal layers that add nothing."""
        modes = self.base.net_config().model_dump()
        net = inflate(self.base.unet, **modes)
        meta = DeltaMeta(origin=Origin.of(self.base, self.clip(clip)), **modes, tune=self.base.tune_config())
        return Delta.extract(net, meta)

    def inverted(self, clip: SuiteClip, delta: Delta, kind: str) -> Latents:
        """Return the clip's latents inverted under `delta`; inverted now unless stored. `kind` names the delta among its
        clip's."""
        config = self.base.invert_config()
        path = self._path(clip, f"{kind}-{_digest(config.model_dump_json(), delta.meta.model_dump_json())}.latents")
        if not path.exists():
            latents = invert(self.base, self.clip(clip), delta, config, net=self.sampler.net, on_step=self.on_step)
            _write(latents, path)
        return Latents.load(path)

    def _path(self, clip: SuiteClip, what: str) -> Path:
        frames = _digest(self.base.fingerprint, clip.caption, self.clip(clip).frames.tobytes())
        return self.folder / clip.name / f"{frames}-{what}.safetensors"


def _write(result: Delta | Latents, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    result.save(partial)
    partial.replace(path)  # a run that is stopped leaves no half file


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:12]
