"""Strangers' files are decoded in a process of its own, which knows nothing and cannot do much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tav import Clip, ClipLimits
from tav.errors import InvalidClip
from tav.media.decoder import probe_isolated, read_frames_isolated
from tav.media.sandbox import fence_version
from tav.probe import probe
from tav.video import read_frames
from tests.media.files import pictures, write

FAILS = "made the decoder fail"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "clip.mp4", pictures(), "libx264")


def test_frames_are_the_same_as_decoded_here(clip: Path) -> None:
    frames, fps = read_frames_isolated(clip, 5, (48, 40), 1)
    here, rate = read_frames(clip, 5, (48, 40), 1)
    assert (frames == here).all() and fps == rate
    assert probe_isolated(clip) == probe(clip)


def test_a_strangers_clip_is_not_decoded_here(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Clip.read(clip, "a bar", 3, (48, 32)).frames

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(av, "open", refuse)
    assert (Clip.read(clip, "a bar", 3, (48, 32), limits=ClipLimits()).frames == expected).all()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [(ClipLimits(max_seconds=0.5), "longer than 0.5 seconds"), (ClipLimits(max_pixels=1000), "96x64, more than 1000 pixels")],
)
def test_limits_hold_when_frames_are_read(clip: Path, limits: ClipLimits, sentence: str) -> None:
    with pytest.raises(InvalidClip, match=sentence):
        Clip.read(clip, "a bar", 3, (48, 32), limits=limits)
    with pytest.raises(InvalidClip, match="12 frames, too few for 13"):
        Clip.read(clip, "a bar", 13, (48, 32), limits=ClipLimits())


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a file that has taken over the decoder might do; the test writes it as Python, `request` is what it was asked."""
    program, body = tmp_path / "decoder", tmp_path / "body.py"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.argv.pop(0)' >/dev/null; exit 9\n")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {body} "$4"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return body


START = "import json, os, sys, time\nrequest = json.loads(sys.argv[1])\n"
ANSWER = 'print(json.dumps({"fps": 12.0}))\n'


def test_it_is_told_no_secret(decoder: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAV_S3_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HOME"):
        monkeypatch.setenv(name, "secret")
    decoder.write_text(START + f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps(dict(os.environ)))")
    with pytest.raises(InvalidClip, match=FAILS):
        probe_isolated(clip)
    seen = json.loads((tmp_path / "seen").read_text())
    assert "secret" not in seen.values() and set(seen) <= {
        "PATH",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "LANG",
        "TMPDIR",
        "OMP_NUM_THREADS",
        "PWD",
        "SHLVL",
        "_",
        "LC_CTYPE",
    }


@pytest.mark.parametrize(
    "act",
    [
        "os.abort()",
        "sys.exit(1)",
        "print('no answer')",
        "print('[' * 500000)",
        "print(json.dumps({'fps': float('nan')}))",
        "print(json.dumps({'fps': -1.0}))",
        "print(json.dumps({'refused': 'x' * 5000})); sys.exit(2)",
        "print(json.dumps({'probe': {'width': -1, 'height': 1, 'num_frames': 1, 'fps': 1, 'duration': 1, 'codec': 'h264'}}))",
        ANSWER,  # and no frames
        "os.write(request['frames_fd'], bytes(10));" + ANSWER,
        "os.write(request['frames_fd'], bytes(10 ** 6));" + ANSWER,
    ],
)
def test_whatever_it_does_ends_in_a_sentence(decoder: Path, clip: Path, act: str) -> None:
    decoder.write_text(START + act)
    with pytest.raises(InvalidClip, match=FAILS):
        read_frames_isolated(clip, 2, (16, 16))


def test_one_that_does_not_end_is_ended(decoder: Path, clip: Path) -> None:
    decoder.write_text(START + "time.sleep(600)")
    with pytest.raises(InvalidClip, match=r"longer than 0\.5 seconds to decode"):
        probe_isolated(clip, timeout_s=0.5)


def test_frames_are_bytes_and_nothing_else(decoder: Path, clip: Path) -> None:
    decoder.write_text(START + f"os.write(request['frames_fd'], bytes(range(256)) * 6)\n{ANSWER}")
    frames, fps = read_frames_isolated(clip, 2, (16, 16))
    assert frames.shape == (2, 16, 16, 3) and fps == 12
    assert (frames.reshape(-1) == np.tile(np.arange(256, dtype=np.uint8), 6)).all()


def decoding(clip: Path, act: str) -> subprocess.CompletedProcess[str]:
    """The process as it is, with this Python instead of the first look at the clip."""
    program = (
        f"import os, socket, sys\nfrom tav.media import decoder\ndef look(*_):\n    {act}\ndecoder.Survey = look\n"
        f"sys.exit(decoder.main(decoder._Request(path={str(clip)!r}, limits=decoder.ClipLimits()).model_dump_json()))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_memory_is_limited(clip: Path) -> None:
    assert "MemoryError" in decoding(clip, "bytearray(5 << 30)").stderr


@pytest.mark.skipif(not fence_version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize(
    "act",
    [
        "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
        "open('/etc/passwd').read()",
        "open('/tmp/left-behind', 'w')",
        "os.listdir('/')",
        "os.execv('/bin/true', ['true'])",
        pytest.param(
            "socket.create_connection(('127.0.0.1', 9), 1)",
            marks=pytest.mark.skipif(fence_version() < 4, reason="this kernel's Landlock knows no TCP"),
        ),
        pytest.param(
            "os.kill(os.getppid(), 0)",
            marks=pytest.mark.skipif(fence_version() < 6, reason="this kernel's Landlock knows no signals"),
        ),
    ],
)
def test_it_opens_no_other_file_and_reaches_nobody(clip: Path, act: str) -> None:
    assert "PermissionError" in decoding(clip, act).stderr.splitlines()[-1]
    assert "PermissionError" not in decoding(clip, f"open({str(clip)!r}, 'rb').read()").stderr
