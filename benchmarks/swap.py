"""How long a swap takes on Stable Diffusion 1.4's shapes, and whether a thousand of them take memory.

    python -m benchmarks.swap                     # 1000 swaps between 20 versions, from a real S3 server on this machine
    python -m benchmarks.swap --swaps 100 --host 20

The network has SD1.4's configuration with weights that nobody reads: only the tuned tensors are touched. A swap is timed from
the delta at hand (in host memory, on CUDA on the device) to the network's tensors; a load from the request to the delta in
host memory, its digests checked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import Any, cast

import psutil
import torch
from diffusers import UNet2DConditionModel

from benchmarks import record
from registry.objects import ObjectStore
from registry.registration import NEEDED
from registry.versions import VersionStore
from services.platform import PlatformSettings, Stack
from services.sampling.deltas import DeltaCache
from services.sampling.tiers import Budget
from tav import Base, Delta, Latents
from tav.config import InvertConfig, TuneConfig
from tav.delta import DeltaMeta, Origin
from tav.inflation import VideoUNet, inflate, is_tuned
from tav.latents import LatentsMeta
from tav_client.schemas import ModelVersion

SD14: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
ORIGIN = Origin(base="sd14-shapes", fingerprint="0" * 64, caption="a man is skiing", num_frames=32, size=(512, 512), fps=8.0)


def network(device: str) -> VideoUNet:
    """SD1.4's, inflated; frozen weights are whatever the memory holds."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD14)
    return inflate(unet.to_empty(device=device))


def put_version(objects: ObjectStore, net: VideoUNet, number: int, folder: Path) -> ModelVersion:
    """One version's files in S3, its delta's values all different from the others'."""
    tuned = {name: tensor for name, tensor in net.named_parameters() if is_tuned(name)}
    tensors = {name: torch.full(tensor.shape, number / 128, dtype=torch.float16) for name, tensor in tuned.items()}
    meta = DeltaMeta(origin=ORIGIN, attention="sparse_causal", group_norm="video", tune=TuneConfig())
    Delta(tensors, meta).save(folder / "delta.safetensors")
    latents = Latents(torch.zeros(1, 4, 32, 64, 64), LatentsMeta(origin=ORIGIN, invert=InvertConfig()))
    latents.save(folder / "latents.safetensors")
    (folder / "config.json").write_text("{}")
    return ModelVersion(
        name="swap",
        version=number,
        created_at=0,
        job_id="none",
        base=ORIGIN.base,
        base_fingerprint=ORIGIN.fingerprint,
        caption=ORIGIN.caption,
        num_frames=ORIGIN.num_frames,
        size=ORIGIN.size,
        files={name: objects.put_file(folder / name, f"swap/{number}/{name}") for name in NEEDED},
    )


class Counting(VersionStore):
    """Counts what is fetched from S3."""

    fetched = 0

    def fetch(self, version: ModelVersion, folder: Path, files: tuple[str, ...] = NEEDED) -> Path:
        """As of `VersionStore`."""
        self.fetched += 1
        return super().fetch(version, folder, files)


def spread(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = quantiles(seconds, n=20)
    return {"count": len(seconds), "median_ms": round(1000 * median(seconds), 1), "p95_ms": round(1000 * cuts[18], 1)}


async def swap(net: VideoUNet, store: Counting, cache: DeltaCache, versions: list[ModelVersion], swaps: int) -> dict[str, Any]:
    """Swap at random; memory is read after two rounds and at the end."""
    process, chosen, cuda = psutil.Process(), random.Random(0), net.device.type == "cuda"
    watched = next(tensor for name, tensor in net.named_parameters() if is_tuned(name))
    places = {name: tensor.data_ptr() for name, tensor in net.named_parameters()}
    warm, loads, memory = [], [], {}
    for done in range(swaps):
        version = chosen.choice(versions)
        fetched, began = store.fetched, time.perf_counter()
        async with cache.use(version) as loaded:
            if store.fetched > fetched:
                loads.append(time.perf_counter() - began)
            began = time.perf_counter()
            loaded.delta.apply(net)
            if cuda:
                torch.cuda.synchronize()
            warm.append(time.perf_counter() - began)
        assert watched.flatten()[-1].item() == version.version / 128
        if done + 1 in (2 * len(versions), swaps):
            memory[f"after_{done + 1}_swaps_mib"] = {
                "process": process.memory_info().rss >> 20,
                "tensors_in_tier": cache.host.nbytes >> 20,
                **({"device": torch.cuda.memory_allocated() >> 20} if cuda else {}),
            }
    assert places == {name: tensor.data_ptr() for name, tensor in net.named_parameters()}
    return {"swap": spread(warm), "load_from_s3": spread(loads), "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--host", default="16", help="budget of the tier in host memory")
    parser.add_argument("--device-tier", default="4", help="budget of the tier on the device, on CUDA")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = network(args.device)
    tuned = [tensor for name, tensor in net.named_parameters() if is_tuned(name)]
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(PlatformSettings(data_dir=Path(folder) / "stack").with_free_ports())
        try:
            stack.up(["s3"])
            settings = stack.settings()
            objects = ObjectStore(settings)
            versions = [put_version(objects, net, number, Path(folder)) for number in range(1, args.versions + 1)]
            base = cast(
                Base, SimpleNamespace(name=ORIGIN.base, fingerprint=ORIGIN.fingerprint, device=torch.device(args.device))
            )
            store, work = Counting(settings, objects), Path(folder) / "work"
            cache = DeltaCache(store, base, Budget.parse(args.host), Budget.parse(args.device_tier), work)
            figures = asyncio.run(swap(net, store, cache, versions, args.swaps))
        finally:
            stack.down()
    shapes = {"tuned_tensors": len(tuned), "tuned_parameters": sum(tensor.numel() for tensor in tuned)}
    setting = {"device": args.device, "threads": args.threads, "versions": args.versions, "host_tier": args.host}
    record.write("swap", {**shapes, **setting, **figures}, args.out)


if __name__ == "__main__":
    main()
