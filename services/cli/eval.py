"""`tav eval videos|run`: how good videos are."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from services.cli.common import ServerCommand
from tav.errors import InvalidConfig
from tav.eval.scores import CLIP, PICK, STRUCTURE, ScoreConfig, Scorer

app = ServerCommand("Score videos, and compare methods on a suite of clips and edits.")

ClipModel = Annotated[
    str | None, typer.Option(help=f"CLIP model for frame consistency and faithfulness: {CLIP}, another hub id, or a folder.")
]
PickModel = Annotated[str | None, typer.Option(help=f"PickScore model: {PICK}, or a folder.")]
PickProcessor = Annotated[str | None, typer.Option(help="Where PickScore's processor is, if not beside the model.")]
StructureModel = Annotated[str | None, typer.Option(help=f"Vision transformer for structure: {STRUCTURE}, or a folder.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]


@app.command()
def videos(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of frames.")],
    *,
    prompt: Annotated[list[str] | None, typer.Option(help="What was asked: once for all, or once for each video.")] = None,
    source: Annotated[list[Path] | None, typer.Option(help="What it was made from: once for all, or for each video.")] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame of the source that was used.")] = 0,
    stride: Annotated[int | None, typer.Option(min=1, help="Every n-th frame of the source; left out: spread evenly.")] = None,
    clip_model: ClipModel = None,
    pick_model: PickModel = None,
    pick_processor: PickProcessor = None,
    structure_model: StructureModel = None,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Score any videos. A score appears where what it needs is given: prompt, source, model."""
    from tav.eval.layout import read_source, read_video

    prompts, sources = _each("--prompt", prompt, len(videos)), _each("--source", source, len(videos))
    scorer = Scorer(_models(clip_model, pick_model, pick_processor, structure_model), device)
    rows = []
    for path, prompt_, origin in zip(videos, prompts, sources, strict=True):
        frames = read_video(path)
        size = (frames.shape[2], frames.shape[1])
        source_frames = read_source(origin, len(frames), size, {"start": start, "stride": stride}) if origin else None
        names = {"video": str(path), "prompt": prompt_, "source": str(origin) if origin else None}
        rows.append(names | {"scores": scorer.score(frames, prompt_, source_frames)})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
    else:
        _print_scores(rows)


@app.command()
def run(
    ctx: typer.Context,
    *,
    suite: Annotated[str, typer.Option(help="`offline`, `offline-development`, or a folder in the LOVEU-TGVE layout.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Everything goes here; what is there is not made again.")],
    methods: Annotated[str, typer.Option(help="By commas; the first is what the others are compared with.")] = "tuned",
    submission: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Videos made elsewhere, as <set>/<clip>/<edit>/00000.jpg.")
    ] = None,
    service: Annotated[
        bool, typer.Option("--service/--local", help="As jobs of the service (`tav --url …`), or on this machine.")
    ] = False,
    seeds: Annotated[str | None, typer.Option(help="By commas; left out: the suite's own.")] = None,
    clips: Annotated[str | None, typer.Option(help="By commas; left out: all.")] = None,
    edits: Annotated[str | None, typer.Option(help="By commas; left out: all.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=2, help="Of each clip; left out: as the base recommends.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Likewise, e.g. 480x480.")] = None,
    base: Annotated[str | None, typer.Option(help="Hub id, folder or `offline`; left out: offline, or the service's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Over the base's settings, e.g. tune.steps=300.")
    ] = None,
    clip_model: ClipModel = None,
    pick_model: PickModel = None,
    pick_processor: PickProcessor = None,
    structure_model: StructureModel = None,
    t2v_model: Annotated[
        str | None, typer.Option(help="What the method cogvideox samples: zai-org/CogVideoX-2b, another hub id, or a folder.")
    ] = None,
    device: Device = "cpu",
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the base, on this machine.")] = "fp32",
    processes: Annotated[int, typer.Option(min=1, help="Clips at a time, on this machine.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; left out: all cores.")] = None,
) -> None:
    """Make a suite's videos, score them, and write report.html. Run it again to go on where it stopped."""
    from tav.eval.plan import Plan

    options: dict[str, Any] = {"num_frames": num_frames, "size": _size(size)}
    plan = Plan(
        suite=suite,
        out=out,
        methods=_words(methods),
        seeds=None if seeds is None else _numbers(seeds),
        clips=_words(clips),
        edits=_words(edits),
        clip_options={name: value for name, value in options.items() if value is not None},
        submissions={name: Path(folder) for name, folder in _pairs(submission)},
        scores=_models(clip_model, pick_model, pick_processor, structure_model),
        text_to_video=t2v_model,
        base=base or ("" if service else "offline"),
        overrides={name: _value(text) for name, text in _pairs(set_)},
        device=device,
        dtype=precision,
        threads=threads,
        processes=processes,
    )
    command = shlex.join(["tav", *sys.argv[1:]])
    if service:
        from services.evaluation.run import run_on_service
        from tav_client import TavClient

        with TavClient(**(ctx.find_root().obj or {})) as client:
            report = run_on_service(plan, client, command, typer.echo)
    else:
        from tav.eval.local import run as run_here

        report = run_here(plan, command, typer.echo)
    typer.echo((out / "summary.md").read_text())
    typer.echo(f"report  {report}")


def _models(clip: str | None, pick: str | None, processor: str | None, structure: str | None) -> ScoreConfig:
    return ScoreConfig(clip_model=clip, pick_model=pick, pick_processor=processor, structure_model=structure)


def _each(option: str, values: list[Any] | None, videos: int) -> list[Any]:
    """Return one value for each video."""
    values = values or [None]
    if len(values) not in (1, videos):
        raise InvalidConfig(f"{option} is given {len(values)} times for {videos} videos: give it once, or once for each")
    return values * videos if len(values) == 1 else values


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in _words(text)) or not _words(text):
        raise typer.BadParameter(f"{text!r} is no list of seeds such as 0,1,2.")
    return tuple(int(word) for word in _words(text))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, e.g. 480x480.")
    return int(width), int(height)


def _pairs(texts: list[str] | None) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise typer.BadParameter(f"{name!r} is not NAME=VALUE.")
    return [(name, value) for name, _, value in pairs]


def _value(text: str) -> Any:
    """Parse `300`, `0.7`, `[480, 480]`, `true`; anything else is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _print_scores(videos: list[dict[str, Any]]) -> None:
    from tav.eval.scores import MEASURES

    shown = [measure for measure in MEASURES if any(measure.name in video["scores"] for video in videos)]
    rows = [["video", *(f"{m.name} {'↑' if m.better == 'higher' else '↓'}" for m in shown)]]
    for video in videos:
        scores = video["scores"]
        rows.append([video["video"], *(format(scores[m.name], m.format) if m.name in scores else "" for m in shown)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
