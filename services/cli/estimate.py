"""`tav estimate`: peak memory and time of a job in every memory setting, before it is submitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.common import ServerCommand
from tav_client.cli.common import memory_of, request_of, size_of

if TYPE_CHECKING:
    from tav.estimate import Device, Profile
    from tav.memory import Precision
    from tav_client.schemas import Estimate, Estimates

app = ServerCommand("Estimate a job's memory and time.")
_GIB = 2**30


@app.command()
def estimate(
    base: Annotated[str | None, typer.Option(help="A folder, a hub id or `offline`; left out, the service's own.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=2, help="Of the clip; left out, as the base recommends.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, likewise.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of tuning, likewise.")] = None,
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="Left out, the service's own.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SETTING", help="As of `tav jobs submit`; left out, auto.")] = None,
    videos: Annotated[int, typer.Option(min=0, help="Sampled after tuning.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="That tune the clip together.")] = 1,
    device: Annotated[str, typer.Option(help="`here`, which is probed, or a GPU type such as A100-80G.")] = "here",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print peak memory and time of tuning and inverting one clip and sampling from it, by memory setting."""
    from services.compute import device_of
    from services.settings import Settings
    from services.tuning.estimates import forecast, rungs, work_of
    from tav.bases import recommended
    from tav_client.schemas import TuningParams

    settings = Settings()
    if precision is not None:
        settings = settings.model_copy(update={"precision": precision})
    fields = {"num_frames": num_frames, "size": size_of(size), "steps": steps, "memory": memory_of(memory)}
    params = request_of(TuningParams, fields)
    name = base or settings.base
    cuda = _on_cuda() if device == "here" else device != "cpu"

    def device_in(precision: Precision) -> Device:
        if not (cuda and device == "here"):
            return device_of("cpu" if device == "here" else device, precision, settings)
        from tav.estimate.measure import gpu

        return gpu(precision)

    work = work_of(params, recommended(name), videos=videos, gpus=gpus)
    estimates = forecast(work, _profile(name), rungs(params, settings, cuda=cuda), device_in)
    if as_json:
        typer.echo(json.dumps(estimates.model_dump(mode="json"), indent=2))
    else:
        _print(name, estimates)


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _profile(name: str) -> Profile:
    """Return the base's packaged profile, or count one from its configs."""
    from tav.estimate.profile import of_base, of_configs

    if (profile := of_base(name)) is not None:
        return profile
    from tav.bases.loading import find
    from tav.estimate.trace import profile_of

    folder = find(name)
    unet, vae, text = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder"))
    if (profile := of_configs(unet, vae)) is not None:
        return profile
    typer.echo("No packaged profile describes this base: counting its network's work takes some minutes.", err=True)
    return profile_of(name, unet, vae, text)


def _print(base: str, estimates: Estimates) -> None:
    width, height = estimates.size
    videos = f"{estimates.videos} video{'s' * (estimates.videos != 1)}"
    typer.echo(f"{base}, {estimates.num_frames} frames of {width}x{height}, {estimates.steps} steps, {videos}")
    first = estimates.settings[0]
    typer.echo(f"on {first.device} with {first.device_memory_bytes / _GIB:.0f} GiB")
    for index, estimate in enumerate(estimates.settings):
        _print_setting(estimate, index == estimates.chosen)
    if first.memory_error is None or first.time_error is None:
        typer.echo("Predicted from counted operations and data sheets: no run was ever measured on such a device.")
    else:
        typer.echo(
            f"Fitted to runs measured on a CPU; on runs that the fit had not seen, memory was off by {first.memory_error:.0%} "
            f"and time by {first.time_error:.0%} at most."
        )


def _print_setting(estimate: Estimate, chosen: bool) -> None:
    from tav.memory import MemorySetting

    setting = MemorySetting.model_validate(estimate.memory.model_dump())
    parts = {name: f"{part.peak_memory_bytes / _GIB:.1f} GiB {_time(part.seconds)}" for name, part in estimate.phases.items()}
    host = f", and {estimate.host_memory_bytes / _GIB:.1f} GiB on the host" if estimate.host_memory_bytes else ""
    typer.echo(f"{'→' if chosen else ' '} {setting.describe()}{'' if estimate.fits else '  (does not fit)'}")
    typer.echo(f"    {estimate.peak_memory_bytes / _GIB:.1f} GiB{host}, {_time(estimate.seconds)}")
    typer.echo("    " + ", ".join(f"{name} {text}" for name, text in parts.items()))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
