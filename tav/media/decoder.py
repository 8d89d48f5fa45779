"""Untrusted files are decoded in a process of its own, with limits on memory, time and output, and without credentials.

What comes back is not parsed further than it must be: a line of JSON, and the bytes of as many pixels as were asked for. A file
made to crash, stall or take over FFmpeg harms nothing but that process, which where the kernel can do it
(`tav.media.sandbox`) opens no other file than it and Python's packages, and no connection.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import IO

import av
import numpy as np
import PIL
import pydantic
from pydantic import BaseModel, Field, ValidationError

from tav.errors import InvalidClip
from tav.media.sandbox import fence_in
from tav.media.timestamps import FASTEST
from tav.probe import ClipLimits, ClipProbe, Survey
from tav.video import Frames, pick_frames

PROBE_SECONDS = 60.0
READ_SECONDS = 300.0
"""Reading goes over the frames twice, and may share its processor with tuning."""
_MEMORY_BYTES = 4 << 30
_ANSWER_BYTES = 1 << 16
_REFUSED = 2


class _Choice(BaseModel):
    """The arguments of `tav.video.read_frames`."""

    num_frames: int
    size: tuple[int, int]
    start: int = 0
    stride: int | None = None


class _Request(BaseModel):
    path: str
    limits: ClipLimits
    choice: _Choice | None = None
    frames_fd: int | None = None


class _Answer(BaseModel):
    probe: ClipProbe | None = None
    fps: float | None = Field(None, gt=0, le=FASTEST)
    refused: str | None = Field(None, max_length=400)


def probe_isolated(path: str | Path, limits: ClipLimits | None = None, timeout_s: float = PROBE_SECONDS) -> ClipProbe:
    """Run `tav.probe.probe` in a process of its own.

    Raises:
        InvalidClip: as `probe`, or the decoder crashed or took longer than `timeout_s`.
    """
    clip = _ask(_Request(path=os.path.abspath(path), limits=limits or ClipLimits()), timeout_s).probe
    if clip is None:
        raise _failed()
    return clip


def read_frames_isolated(
    path: str | Path,
    num_frames: int,
    size: tuple[int, int],
    start: int = 0,
    stride: int | None = None,
    limits: ClipLimits | None = None,
    timeout_s: float = READ_SECONDS,
) -> tuple[Frames, float]:
    """Run `tav.video.read_frames` in a process of its own, within `limits` or the default ones.

    Raises:
        InvalidClip: as `read_frames`, beyond the limits, or the decoder crashed or took longer than `timeout_s`.
    """
    choice = _Choice(num_frames=num_frames, size=size, start=start, stride=stride)
    with _scratch() as file:
        request = _Request(path=os.path.abspath(path), limits=limits or ClipLimits(), choice=choice, frames_fd=file.fileno())
        fps = _ask(request, timeout_s).fps
        shape = num_frames, size[1], size[0], 3
        if fps is None or os.fstat(file.fileno()).st_size != np.prod(shape):
            raise _failed()
        file.seek(0)
        return np.fromfile(file, np.uint8).reshape(shape), fps


def _ask(request: _Request, timeout_s: float) -> _Answer:
    command = [sys.executable, "-P", "-m", "tav.media.decoder", request.model_dump_json()]
    passed = [] if request.frames_fd is None else [request.frames_fd]
    with _scratch() as answer:  # not a pipe: what comes is limited by the process's own limit on files
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                timeout=timeout_s,
                check=False,
                env=_bare_environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidClip(f"the clip took longer than {timeout_s:g} seconds to decode: shorten or re-encode it") from error
        return _parsed(answer, done.returncode)


def _scratch() -> IO[bytes]:
    """Open a file without a name; in memory where that can be, so that a full disk is not taken for a bad clip."""
    return os.fdopen(os.memfd_create("tav"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def _parsed(answer: IO[bytes], code: int) -> _Answer:
    answer.seek(0)
    try:
        answer_model = _Answer.model_validate_json(answer.read(_ANSWER_BYTES))
    except ValidationError as error:
        raise _failed() from error
    if code == _REFUSED and answer_model.refused:
        raise InvalidClip(answer_model.refused)
    if code:
        raise _failed()
    return answer_model


def _failed() -> InvalidClip:
    return InvalidClip("the clip made the decoder fail: re-encode it, e.g. with ffmpeg -c:v libx264 -pix_fmt yuv420p")


def _bare_environment() -> dict[str, str]:
    # No credentials in the process that meets untrusted bytes; it finds the same packages as this one.
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "TMPDIR")}
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}


def main(text: str) -> int:
    """Run the isolated process: JSON on stdout, frames in the file handed to it. Return 0 for done, 2 for refused."""
    request = _Request.model_validate_json(text)
    choice = request.choice
    written = 0 if choice is None else choice.num_frames * choice.size[0] * choice.size[1] * 3
    _limit(resource.RLIMIT_AS, _MEMORY_BYTES + 2 * written)
    _limit(resource.RLIMIT_FSIZE, max(written, _ANSWER_BYTES))
    _limit(resource.RLIMIT_CORE, 0)
    av.logging.set_level(None)
    fence_in(request.path, *_code())
    try:
        survey = Survey(request.path, request.limits)
        answer = _Answer(probe=survey.probe())
        if choice is not None and request.frames_fd is not None:
            frames, fps = pick_frames(request.path, survey, choice.num_frames, choice.size, choice.start, choice.stride)
            with open(request.frames_fd, "wb") as file:
                file.write(frames.data)
            answer.fps = fps
    except InvalidClip as error:
        print(_Answer(refused=str(error)).model_dump_json())
        return _REFUSED
    print(answer.model_dump_json())
    return 0


def _code() -> set[Path]:
    """List folders of Python and of the packages that decode, which import parts of theirs only when they need them."""
    packages = {Path(module.__path__[0]) for module in (av, np, PIL, pydantic)}
    return packages | {folder for name in ("stdlib", "platstdlib") if (folder := Path(sysconfig.get_path(name))).is_dir()}


def _limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
