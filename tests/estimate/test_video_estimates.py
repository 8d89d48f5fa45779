"""What one video takes, before it is drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from services.sampling.estimates import refusal
from tav.config import SampleConfig
from tav.errors import InvalidConfig, OutOfMemory
from tav.estimate.device import GIB, known, measurements
from tav.estimate.profile import packaged
from tav.estimate.video import VideoEstimate, VideoWork, estimate_video, largest_that_fits

SD1, _, SHIPPED = packaged()
CPU = known("cpu", "fp32").model_copy(update={"memory_bytes": 16 * GIB})
DAY = 86_400.0


def work(frames: int = 32, width: int = 512, height: int = 512, **config: Any) -> VideoWork:
    return VideoWork.of(SampleConfig(**config), frames, (width, height), inverted=True, attention="sparse_causal")


def estimated(work: VideoWork) -> VideoEstimate:
    return estimate_video(SD1, work, "fp32", CPU)


def test_more_frames_pixels_guidance_and_injection_take_more_memory_and_time() -> None:
    plain = estimated(work(guidance_scale=1.0))
    for larger in (
        work(guidance_scale=1.0, frames=48),
        work(guidance_scale=1.0, width=768),
        work(),
        work(guidance_scale=1.0, feature_injection=0.5),
    ):
        other = estimated(larger)
        assert other.peak_memory_bytes > plain.peak_memory_bytes and other.seconds > plain.seconds
    assert estimated(work(cache_interval=3)).seconds < estimated(work()).seconds / 2
    assert estimated(work(guidance_interval=(0.0, 0.5))).seconds < estimated(work()).seconds


@pytest.mark.parametrize("shape", [(512, 3840, 2160), (512, 512, 512), (40, 4096, 8), (512, 8, 8), (3, 4096, 4096)])
def test_what_is_said_to_fit_does_and_one_frame_more_does_not(shape: tuple[int, int, int]) -> None:
    video = work(*shape)

    def fits(other: VideoWork) -> bool:
        return estimated(other).fits

    frames, (width, height) = largest_that_fits(video, fits)
    assert fits(video) == (frames == video.frames) == ((width, height) == (video.width, video.height))
    if frames:
        assert fits(video.model_copy(update={"frames": frames}))
        assert frames == video.frames or not fits(video.model_copy(update={"frames": frames + 1}))
    if width:
        assert fits(video.model_copy(update={"width": width, "height": height}))
        assert width % 8 == height % 8 == 0 and width <= video.width and height <= video.height


def test_a_refusal_says_what_it_takes_what_there_is_and_what_would_fit() -> None:
    large = work(512, 3840, 2160)
    memory = refusal(large, SD1, "fp32", CPU, DAY, free=True)
    assert isinstance(memory, OutOfMemory)
    assert "512 frames of 3840x2160 take about" in str(memory) and "has 16 GiB" in str(memory) and "ask for" in str(memory)
    time = refusal(work(num_inference_steps=1000), SHIPPED, "fp32", CPU, 3600.0, free=False)
    assert isinstance(time, InvalidConfig)
    assert "in 1000 steps take about" in str(time) and "60 minutes" in str(time) and "tune the clip with" in str(time)
    tiny = CPU.model_copy(update={"memory_bytes": GIB // 4})
    assert "a larger sampler" in str(refusal(large, SD1, "fp32", tiny, DAY, free=True))
    assert refusal(work(8, 64, 64), SHIPPED, "fp32", CPU, DAY, free=True) is None


MEASURE = """
import json, sys, torch
torch.set_num_threads(1)
import numpy as np
import tav
from tav.delta import Delta, DeltaMeta, Origin
from tav.eval.scores import Scorer
from tav.estimate.measure import PeakMemory
frames, width, height = map(int, sys.argv[1:])
base = tav.Base.load("offline")
net = tav.inflate(base.unet)
origin = Origin.of(base, tav.Clip(np.zeros((frames, height, width, 3), np.uint8), 8.0, "x"))
delta = Delta.extract(net, DeltaMeta(origin=origin, attention="sparse_causal", group_norm="video", tune=None))
config = base.sample_config(num_inference_steps=1, guidance_interval=(0, 1))
with PeakMemory("cpu") as peak:
    video = tav.Sampler(base, net).sample("a red box", delta=delta, config=config)
    Scorer().score(video.frames, "x")
    video.encode("gif")
print(json.dumps(peak.bytes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 64, 64), (96, 64, 64), (4, 1024, 64)])
def test_a_real_video_takes_no_more_memory_than_foreseen_and_not_much_less(shape: tuple[int, int, int]) -> None:
    command = [sys.executable, "-c", MEASURE, *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    foreseen = estimate_video(SHIPPED, work(*shape), "fp32", CPU).peak_memory_bytes
    margin = 1 + measurements()["calibrations"]["cpu"]["memory_error"]
    assert foreseen / 2 < json.loads(done.stdout.splitlines()[-1]) < foreseen * margin
