"""Imports of thousands of modules, as torch, diffusers and DeepSpeed bring them, in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's cycle collector does not run meanwhile, and never looks at what there is then: for a process that starts.

    It would run over and over during imports and find next to nothing, and go through all of it again later and at the end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
