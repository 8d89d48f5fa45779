"""Tune-A-Video (Wu et al., ICCV 2023, arXiv 2212.11565): tune a text-to-image base on one clip, sample its edits.

Names are imported on first use, so that `import tav` and the clip probe do not pay for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tav.base import Base
    from tav.clip import Clip
    from tav.compiling import compile_blocks
    from tav.config import InvertConfig, Progress, SampleConfig, TuneConfig
    from tav.delta import Delta
    from tav.errors import TavError
    from tav.inflation import VideoUNet, inflate
    from tav.inversion import invert
    from tav.latents import Latents
    from tav.probe import ClipLimits, ClipProbe, probe
    from tav.sampling import Sampler, sample
    from tav.tuning import Tuner, tune
    from tav.video import Video

_HOME = {
    "Base": "base",
    "Clip": "clip",
    "ClipLimits": "probe",
    "ClipProbe": "probe",
    "Delta": "delta",
    "InvertConfig": "config",
    "Latents": "latents",
    "Progress": "config",
    "SampleConfig": "config",
    "Sampler": "sampling",
    "TavError": "errors",
    "TuneConfig": "config",
    "Tuner": "tuning",
    "Video": "video",
    "VideoUNet": "inflation",
    "compile_blocks": "compiling",
    "inflate": "inflation",
    "invert": "inversion",
    "probe": "probe",
    "sample": "sampling",
    "tune": "tuning",
}

__all__ = [
    "Base",
    "Clip",
    "ClipLimits",
    "ClipProbe",
    "Delta",
    "InvertConfig",
    "Latents",
    "Progress",
    "SampleConfig",
    "Sampler",
    "TavError",
    "TuneConfig",
    "Tuner",
    "Video",
    "VideoUNet",
    "compile_blocks",
    "inflate",
    "invert",
    "probe",
    "sample",
    "tune",
]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tav' has no attribute {name!r}")
    # `tav.probe` is both a module and its function: set the function over what the import left behind.
    value = getattr(import_module(f"tav.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
