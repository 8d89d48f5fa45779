"""What a sampler computes with, by the service's settings."""

from pathlib import Path
from typing import Any

import pytest

from services.sampling.deltas import LoadedVersion
from services.sampling.engine import Engine
from services.sampling.messages import SampledVideo
from services.settings import Settings
from tav import Delta, Latents
from tav.compiling import is_inside_compiled
from tav.errors import InvalidConfig, OutOfMemory, TavError
from tav_client.schemas import VideoCreate
from tests.sampling.conftest import STEPS, Result
from tests.tav.conftest import write_random_base

REQUEST = VideoCreate.model_validate({"model": "square", "prompt": "a blue square", **STEPS})


@pytest.mark.parametrize("compiled", [False, True])
def test_the_networks_blocks_are_compiled_where_the_service_is_set_so(compiled: bool, tmp_path: Path) -> None:
    base = write_random_base(tmp_path / "base", seed=0)
    settings = Settings(base=str(base), device="cpu", compute_threads=1, work_dir=tmp_path / "work", compile=compiled)
    assert is_inside_compiled(Engine(settings).sampler.net, "mid_block.resnets.0.conv1") is compiled


@pytest.fixture
def loaded(result: Result) -> LoadedVersion:
    return LoadedVersion(Delta.load(result.folder / "delta.safetensors"), Latents.load(result.folder / "latents.safetensors"))


@pytest.mark.slow
def test_a_sampler_refuses_what_it_has_no_memory_for_before_it_takes_any(
    result: Result, loaded: LoadedVersion, tmp_path: Path
) -> None:
    """Of a base whose architecture no packaged profile describes, too: its work is counted here."""
    settings = Settings(base=result.base.name, device="cpu", compute_threads=1, work_dir=tmp_path, sampler_memory=2 << 30)
    engine = Engine(settings)

    def sample(**fields: Any) -> SampledVideo:
        request = REQUEST.model_copy(update=fields)
        return engine.sample(request, engine.config(request), loaded, lambda _: None)

    with pytest.raises(OutOfMemory, match=r"512 frames of 3840x2160 take about .* a sampler has 2 GiB: ask for"):
        sample(use_inverted_latents=False, num_frames=512, size=(3840, 2160))
    assert sample().size == (16, 16)
    engine.settings = settings.model_copy(update={"max_video_seconds": 1e-6})
    with pytest.raises(TavError, match=r"tune the clip with|a larger sampler") as refused:
        sample()
    assert refused.value.code == "invalid_config"


def test_a_sampler_says_what_of_the_prompts_it_does_not_read_or_refuses_it(result: Result, tmp_path: Path) -> None:
    engine = Engine(Settings(base=result.base.name, device="cpu", compute_threads=1, work_dir=tmp_path))
    long = REQUEST.model_copy(update={"prompt": "on and " * 99 + "on it goes"})
    assert engine.unread(REQUEST) == {} and engine.unread(long)["prompt"].endswith("on it goes")
    with pytest.raises(InvalidConfig, match="on and on"):
        engine.unread(long.model_copy(update={"truncate": "error"}))


def test_an_allocation_that_the_system_refuses_is_out_of_memory_not_a_defect(
    result: Result, loaded: LoadedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(Settings(base=result.base.name, device="cpu", compute_threads=1, work_dir=tmp_path))

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(engine, "check_cost", lambda *_: None)
    monkeypatch.setattr(engine.sampler, "sample", refused)
    with pytest.raises(OutOfMemory, match="fewer frames"):
        engine.sample(REQUEST, engine.config(REQUEST), loaded, lambda _: None)
