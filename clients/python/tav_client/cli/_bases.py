"""`tav bases`: what the service tunes on, offers and allows."""

from __future__ import annotations

import typer

from tav_client.cli.common import JsonOption, client_of, print_fields, print_json, print_table


def bases(ctx: typer.Context, json: JsonOption = False) -> None:
    """List the bases to tune on, with what a job gets that leaves a field out, and the limits."""
    offer = client_of(ctx).bases()
    if json:
        print_json(offer)
        return
    rows = []
    for base in offer.data:
        clip, tune, sample = (base.defaults.get(part, {}) for part in ("clip", "tune", "sample"))
        size = "x".join(str(side) for side in clip.get("size", ()))
        steps, sampling = tune.get("steps", ""), sample.get("num_inference_steps", "")
        rows.append((base.id, "yes" if base.default else "", f"{clip.get('num_frames', '')} of {size}", steps, sampling))
    print_table(("BASE", "DEFAULT", "FRAMES", "STEPS", "SAMPLING STEPS"), rows)
    limits, types = offer.limits, ", ".join(offer.choices.gpu_type)
    print_fields(
        {
            "clips": f"{limits.clip_bytes >> 20} MiB, {limits.clip_seconds:g} s, {limits.clip_pixels} pixels at most",
            "gpus": f"{limits.gpus} for a job at most" + (f", of {types}" if types else ""),
            "schedulers": ", ".join(offer.choices.scheduler),
            "formats": ", ".join(offer.choices.format),
            "captions": "may be left out" if offer.captions else "needed",
        }
    )
