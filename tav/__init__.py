"""Tune-A-Video (Wu et al., ICCV 2023, arXiv 2212.11565): tune a text-to-image base on one clip, sample its edits.

In reading order, the method first:

config      settings of tuning, inversion and sampling, with the paper's defaults
errors      the tree of errors
base        the frozen Stable Diffusion model: text and frames in, frames out
clip        source frames and their caption
attention   spatio-temporal attention (Eq. 3) and temporal attention
blocks      the base's blocks, in channels-last memory
inflation   a 2-D UNet as a video network
delta       the tuned tensors and what they were tuned with
tuning      one-shot tuning: the loss, the optimizer, a warm tuner
ddim        the deterministic step, in both directions
inversion   from a clip to inverted latents
latents     inverted latents as a file
sampling    from inverted latents and an edited prompt to a video: the plan of the steps, and the loop
video       frames in and out of files

What sampling can do beside the paper:

solvers     second-order multistep solvers: fewer steps
caching     deep features reused between steps
injection   features of the clip taken over by an edit

What these need:

vae         sizes that latents can hold, frames at once through the VAE
prompts     what of a text a base reads
caption     captions by an image captioner
networks    a base's three networks: built, filled strictly, refused by kind
precision   dtypes, and seeing early that one overflows
memory      memory settings of tuning
compiling   torch.compile of the blocks that repeat
sentences   pydantic's errors as sentences
probe       a clip, looked at before anything else touches it
bases/      where bases come from, and the one that ships
media/      untrusted files: decoded in a sandbox, as a player shows them
kernels/    operators of our own

What stands on them:

estimate/   peak memory and time of a job or a video, before it runs
interop/    other people's checkpoints in, ours out
eval/       scores, suites and methods to compare with

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
