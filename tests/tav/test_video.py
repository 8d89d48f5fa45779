"""Decoding, encoding and the probe, on real files."""

import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tav import Clip, ClipLimits, Video
from tav.errors import InvalidClip, InvalidConfig
from tav.media.decoder import probe_isolated
from tav.media.timestamps import frame_indices
from tav.probe import probe
from tav.video import Format, encode, read_frames


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 64x48 at 10 fps; frame i is grey of level 10·i, with a white left edge."""
    frames = np.stack([np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)])
    frames[:, :, :8] = 255
    path = tmp_path_factory.mktemp("clips") / "ramp.mp4"
    Video(frames, 10.0).save(path)
    return path


def levels(frames: np.ndarray) -> list[int]:
    return [round(float(frame[:, frame.shape[1] // 2].mean()) / 10) for frame in frames]


def test_uniform_sampling_spans_the_clip_and_keeps_its_speed(ramp: Path) -> None:
    frames, fps = read_frames(ramp, 5, (64, 48))
    assert levels(frames) == [0, 5, 10, 14, 19]
    assert fps == pytest.approx(10 / (19 / 4))


def test_start_and_stride_choose_frames(ramp: Path) -> None:
    frames, fps = read_frames(ramp, 4, (64, 48), start=3, stride=4)
    assert levels(frames) == [3, 7, 11, 15] and fps == pytest.approx(2.5)


def test_a_clip_is_read_uniformly_or_from_a_start_at_a_stride(ramp: Path) -> None:
    whole = Clip.read(ramp, "a ramp", num_frames=3, size=(64, 48))
    tail = Clip.read(ramp, "a ramp", num_frames=3, size=(64, 48), start=10)
    strided = Clip.read(ramp, "a ramp", num_frames=3, size=(64, 48), start=2, stride=5)
    assert [levels(clip.frames) for clip in (whole, tail, strided)] == [[0, 10, 19], [10, 14, 19], [2, 7, 12]]
    assert strided.fps == pytest.approx(2) and len(Clip.read(ramp, "a ramp", num_frames=1, size=(64, 48)).frames) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"), [((21,), "20 frames"), ((6, 0, 4), "smaller stride"), ((2, 19), "frame 19")]
)
def test_too_few_frames_is_said(arguments: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InvalidClip, match=sentence):
        frame_indices(20, *arguments)


def test_frames_cover_the_size_and_are_cropped_at_the_centre(ramp: Path) -> None:
    clip = Clip.read(ramp, "a ramp", num_frames=2, size=(32, 32))
    assert clip.frames.shape == (2, 32, 32, 3)  # 64x48 -> 43x32 -> 32x32: most of the white edge is cut away
    assert clip.frames[0, :, 4:].max() < 60


def test_mp4_is_playable_h264_yuv420p_and_keeps_the_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (6, 1, 1, 3), np.uint8), 65 * 33, axis=1).reshape(6, 33, 65, 3)
    Video(frames, 7.5).save(tmp_path / "v.mp4")
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 32)
        assert float(stream.average_rate) == pytest.approx(7.5)
        back = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(stream)])
    assert np.abs(back.astype(int) - frames[:, :32, :64]).mean() < 4


def test_gif_is_written_and_read(tmp_path: Path, ramp: Path) -> None:
    frames, _ = read_frames(ramp, 4, (64, 48))
    Video(frames, 10).save(tmp_path / "v.gif")
    assert probe(tmp_path / "v.gif").num_frames == 4


def test_webm_is_vp9_and_the_same_bytes_every_time(tmp_path: Path, ramp: Path) -> None:
    frames, _ = read_frames(ramp, 4, (64, 48))
    Video(frames, 10).save(tmp_path / "v.webm")
    assert (tmp_path / "v.webm").read_bytes() == Video(frames, 10).encode("webm")
    with av.open(str(tmp_path / "v.webm")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, float(stream.average_rate)) == ("vp9", 64, 48, 10)
        back = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(stream)])
    assert np.abs(back.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize(("side", "matrix"), [(64, 6), (512, 6), (720, 1), (768, 1)])  # FFmpeg's numbers: smpte170m, bt709
def test_files_say_their_colours_and_are_right_for_players_that_do_not_look(format: Format, side: int, matrix: int) -> None:
    drawn = np.array([40, 200, 60])
    with av.open(io.BytesIO(encode(np.full((3, side, side, 3), drawn, np.uint8), 8.0, format))) as file:
        frame = next(file.decode(video=0))
    said = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    assert said == (matrix, 1, 1, 13)  # limited range, BT.709's primaries, sRGB's transfer
    assumed = "ITU709" if side >= 720 else "ITU601"
    shown = frame.reformat(format="rgb24", src_colorspace=assumed).to_ndarray()[side // 2, side // 2]
    assert np.abs(shown - drawn).max() <= 3


def test_the_same_frames_are_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib, numpy as np; from tav.video import encode\n"
        "rng = np.random.default_rng(5)\n"
        "for side in (16, 32, 64, 96):\n"
        "    still = rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)\n"
        "    frames = np.stack([np.roll(still, 3 * i, 1) for i in range(8)])\n"
        "    print(side, hashlib.sha256(encode(frames, 3.652)).hexdigest())\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    written = {process.communicate()[0] for process in running}
    assert len(written) == 1 and len(written.pop().splitlines()) == 4


@pytest.mark.parametrize("fps", [0, -1, 1e-300, 1e-4, 241, 1e9, float("nan"), float("inf")])
@pytest.mark.parametrize("format", ["mp4", "webm", "gif"])
def test_a_rate_that_makes_no_sense_is_refused(fps: float, format: Format) -> None:
    with pytest.raises(InvalidConfig, match="frames per second will not do"):
        encode(np.zeros((2, 16, 16, 3), np.uint8), fps, format)


@pytest.mark.parametrize("fps", [0.01, 0.117, 0.9, 3.652, 23.976, 120])
def test_a_rate_is_written_as_it_is(fps: float, tmp_path: Path) -> None:
    for name in ("v.mp4", "v.webm"):
        Video(np.zeros((3, 16, 16, 3), np.uint8), fps).save(tmp_path / name)
        assert probe(tmp_path / name, ClipLimits(max_seconds=1000)).fps == pytest.approx(fps, rel=0.01)


@pytest.mark.parametrize("fps", [3.652, 8, 12, 24, 30, 50])
def test_a_gif_keeps_its_speed(fps: float, tmp_path: Path) -> None:
    frames = np.stack([np.full((16, 16, 3), 10 * i, np.uint8) for i in range(24)])
    Video(frames, fps).save(tmp_path / "v.gif")
    assert probe(tmp_path / "v.gif").duration == pytest.approx(24 / fps, abs=0.006)


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="ask for mp4, gif or webm"):
        encode(np.zeros((2, 16, 16, 3), np.uint8), 8, "avi")  # type: ignore[arg-type]


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"\.mp4, \.gif or \.webm"):
        Video(np.zeros((1, 8, 8, 3), np.uint8), 8).save(tmp_path / "v.avi")


def test_probe_tells_what_a_clip_holds(ramp: Path) -> None:
    assert probe_isolated(ramp).model_dump() == {
        "width": 64,
        "height": 48,
        "num_frames": 20,
        "fps": 10.0,
        "duration": 2.0,
        "codec": "h264",
        "notes": [],
    }


@pytest.mark.parametrize(
    ("content", "limits", "sentence"),
    [
        (b"", ClipLimits(), "empty"),
        (b"this is a text file, not a video" * 50, ClipLimits(), "not a readable video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n", ClipLimits(), "not a readable video"),
        (None, ClipLimits(max_bytes=100), "more than the 100 allowed"),
        (None, ClipLimits(max_pixels=1000), "scale it down"),
        (None, ClipLimits(max_seconds=1.0), "longer than 1 seconds"),
        (None, ClipLimits(min_frames=30), "20 frame"),
    ],
)
def test_bad_clips_are_refused_with_a_sentence(
    ramp: Path, tmp_path: Path, content: bytes | None, limits: ClipLimits, sentence: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(ramp.read_bytes() if content is None else content)
    with pytest.raises(InvalidClip, match=sentence):
        probe_isolated(path, limits)


def test_a_truncated_clip_is_refused_not_crashed_on(ramp: Path, tmp_path: Path) -> None:
    whole = ramp.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InvalidClip):
        probe_isolated(tmp_path / "cut.mp4")
