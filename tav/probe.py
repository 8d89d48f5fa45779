"""Looks at an untrusted clip before anything else touches it. No torch; `python -m tav.probe FILE` prints JSON.

`probe_isolated` runs the decoder in a process of its own, with limits on memory and time, so that a file made to crash or
stall FFmpeg harms nothing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import av
from pydantic import BaseModel, Field

from tav.errors import InvalidClip

FORMATS = "mov,matroska,avi,gif"
"""FFmpeg demuxers for mp4/mov, mkv/webm, avi and gif. Playlists and `concat` are out: they open other files."""
CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "gif", "prores"})
_MEMORY_BYTES = 4 << 30


class ClipLimits(BaseModel):
    """What is accepted as a clip."""

    max_bytes: int = Field(256 << 20, description="File size.")
    max_pixels: int = Field(3840 * 2160, description="Width × height.")
    max_seconds: float = Field(60.0, description="Duration.")
    min_frames: int = Field(2, description="One frame has no motion to learn.")


class ClipProbe(BaseModel):
    """What the file holds; every frame has been decoded once."""

    width: int
    height: int
    num_frames: int
    fps: float
    codec: str


def open_video(path: str | Path) -> av.container.InputContainer:
    """Open a local video file; nothing it refers to is opened.

    Raises:
        InvalidClip: not a video in one of the accepted containers.
    """
    try:
        container = av.open(str(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
    except (av.FFmpegError, OSError) as error:
        raise InvalidClip("the clip is not a readable video: send an mp4 (H.264), mov, mkv, webm, avi or gif file") from error
    if not container.streams.video:
        container.close()
        raise InvalidClip("the clip has no video stream: send a file with pictures in it")
    return container


def probe(path: str | Path, limits: ClipLimits | None = None) -> ClipProbe:
    """Decode a clip within `limits`.

    Raises:
        InvalidClip: says which limit it breaks, or that it cannot be decoded.
    """
    limits = limits or ClipLimits()
    size = Path(path).stat().st_size
    if size == 0:
        raise InvalidClip("the clip is empty: send a video file")
    if size > limits.max_bytes:
        raise InvalidClip(f"the clip has {size} bytes, more than the {limits.max_bytes} allowed: shorten or compress it")
    with open_video(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        if codec not in CODECS:
            raise InvalidClip(f"codec {codec!r} is not supported: send one of {', '.join(sorted(CODECS))}")
        width, height = stream.width, stream.height
        if width * height > limits.max_pixels:
            raise InvalidClip(f"the clip is {width}x{height}, more than {limits.max_pixels} pixels: scale it down")
        fps = float(stream.average_rate or 0) or 8.0
        max_frames = int(limits.max_seconds * fps)
        num_frames = 0
        try:
            for _ in container.decode(stream):
                num_frames += 1
                if num_frames > max_frames:
                    raise InvalidClip(f"the clip is longer than {limits.max_seconds:g} seconds: cut it")
        except av.FFmpegError as error:
            raise InvalidClip(f"the clip breaks off after frame {num_frames}: export it again") from error
    if num_frames < limits.min_frames:
        raise InvalidClip(f"the clip has {num_frames} frame(s): at least {limits.min_frames} are needed")
    return ClipProbe(width=width, height=height, num_frames=num_frames, fps=fps, codec=codec)


def probe_isolated(path: str | Path, limits: ClipLimits | None = None, timeout_s: float = 60.0) -> ClipProbe:
    """`probe` in a process of its own.

    Raises:
        InvalidClip: as `probe`, or the decoder crashed or took longer than `timeout_s`.
    """
    command = [sys.executable, "-m", "tav.probe", str(path), (limits or ClipLimits()).model_dump_json()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=_bare_environment())
    except subprocess.TimeoutExpired as error:
        raise InvalidClip(f"the clip took longer than {timeout_s:g} seconds to decode: shorten or re-encode it") from error
    if done.returncode == 0:
        return ClipProbe.model_validate_json(done.stdout)
    if done.returncode == 2 and done.stdout:
        raise InvalidClip(json.loads(done.stdout)["detail"])
    raise InvalidClip("the clip made the decoder fail: re-encode it, e.g. with ffmpeg -c:v libx264 -pix_fmt yuv420p")


def _bare_environment() -> dict[str, str]:
    # No credentials in the process that meets untrusted bytes.
    return {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG")}


def main(path: str, limits: str) -> int:
    """Entry of the isolated process: JSON on stdout; 0 accepted, 2 refused."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    av.logging.set_level(None)
    try:
        print(probe(path, ClipLimits.model_validate_json(limits)).model_dump_json())
    except InvalidClip as error:
        print(json.dumps({"detail": str(error)}))
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "{}"))
