"""What a sampler computes with, by the service's settings."""

from pathlib import Path

import pytest

from services.sampling.engine import Engine
from services.settings import Settings
from tav.compiling import is_inside_compiled
from tests.tav.conftest import write_random_base


@pytest.mark.parametrize("compiled", [False, True])
def test_the_networks_blocks_are_compiled_where_the_service_is_set_so(compiled: bool, tmp_path: Path) -> None:
    base = write_random_base(tmp_path / "base", seed=0)
    settings = Settings(base=str(base), device="cpu", compute_threads=1, work_dir=tmp_path / "work", compile=compiled)
    assert is_inside_compiled(Engine(settings).sampler.net, "mid_block.resnets.0.conv1") is compiled
