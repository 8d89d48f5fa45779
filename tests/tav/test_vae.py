"""The VAE's sizes: one rule for all who ask."""

import importlib.util
from pathlib import Path

import pytest

import tav.interop
from tav import vae
from tav.errors import InvalidConfig


@pytest.mark.parametrize("size", [(8, 8), (512, 64)])
def test_multiples_of_the_scale_are_sizes(size: tuple[int, int]) -> None:
    vae.check_size(*size)


@pytest.mark.parametrize("size", [(12, 12), (60, 64), (64, 4), (0, 8), (-8, 8)])
def test_any_other_size_is_refused_with_what_will_do(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidConfig, match=rf"size {size[0]}x{size[1]} will not do: .* multiples of 8$"):
        vae.check_size(*size)


def test_an_exported_pipeline_decodes_as_many_frames_at_once() -> None:
    file = Path(tav.interop.__path__[0]) / "pipeline" / "pipeline.py"  # it cannot import this project
    spec = importlib.util.spec_from_file_location("exported_pipeline", file)
    assert spec is not None and spec.loader is not None
    pipeline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pipeline)
    assert pipeline._FRAMES_AT_ONCE == vae.FRAMES_AT_ONCE
