"""Other people's text: captions and manifests as editors save them, and words on a terminal."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tav_client import InvalidRequest, Manifest
from tav_client.cli import _app

CAPTION = "a café’s ball, 球"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "clips"
    made.mkdir()
    (made / "clip.mp4").write_bytes(b"x")
    return made


def captions(folder: Path) -> list[tuple[str, str | None]]:
    return [(entry.name, entry.request.caption) for entry in Manifest.read(folder).entries]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32"])
def test_a_caption_is_read_in_every_encoding_that_says_which_it_is(folder: Path, encoding: str) -> None:
    data = ("\ufeff" + CAPTION).encode("utf-16-be") if encoding == "utf-16-be-mark" else CAPTION.encode(encoding)
    (folder / "clip.txt").write_bytes(data)
    assert captions(folder) == [("clip.mp4", CAPTION)]


@pytest.mark.parametrize(
    "data",
    [
        "a café".encode("cp1252"),
        "ein Bär\r\n".encode("latin-1"),
        "мяч".encode("cp1251"),
        "a ball".encode("utf-16-le"),  # without a mark it is UTF-8 with zero bytes
        "a ball".encode("utf-16") + b"\x00",
    ],
)
def test_what_cannot_be_told_is_not_guessed_but_refused_with_the_files_name(folder: Path, data: bytes) -> None:
    (folder / "clip.txt").write_bytes(data)
    with pytest.raises(InvalidRequest, match=r"clip 1 clip\.mp4: .*clip\.txt is not text in UTF-8.*save it as UTF-8"):
        Manifest.read(folder)


def test_an_empty_caption_file_is_said_so(folder: Path) -> None:
    (folder / "clip.txt").write_bytes(b"\xef\xbb\xbf\r\n")
    with pytest.raises(InvalidRequest, match=r"clip\.txt is empty: write there what the clip shows"):
        Manifest.read(folder)


def test_what_macos_and_windows_add_to_a_folder_is_no_clip(folder: Path) -> None:
    (folder / "clip.TXT").write_text("a ball")
    for name in ("._clip.mp4", "._clip.TXT", ".clip.mp4.12.part", "._.DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7\xff")
    (folder / "folder.mp4").mkdir()
    assert captions(folder) == [("clip.mp4", "a ball")]


def test_a_name_with_an_umlaut_finds_its_caption_however_the_system_writes_it(folder: Path) -> None:
    (folder / "clip.mp4").unlink()
    (folder / unicodedata.normalize("NFD", "bär.mp4")).write_bytes(b"x")
    (folder / unicodedata.normalize("NFC", "bär.txt")).write_text("a bear")
    assert [caption for _, caption in captions(folder)] == ["a bear"]


def test_a_captions_lines_are_one_prompt(folder: Path) -> None:
    (folder / "clip.txt").write_bytes(b"a ball\r\nrolls over\tsand\r\n")
    assert captions(folder) == [("clip.mp4", "a ball rolls over sand")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_manifest_is_read_in_these_encodings_too(folder: Path, encoding: str) -> None:
    manifest = folder / "clips.yaml"
    manifest.write_bytes(f"clips:\r\n- {{clip: clip.mp4, caption: {CAPTION!r}}}\r\n".encode(encoding))
    assert captions(manifest) == [("clip.mp4", CAPTION)]
    manifest.write_bytes("clips: [{clip: clip.mp4, caption: café}]".encode("cp1252"))
    with pytest.raises(InvalidRequest, match=r"clips\.yaml is not text in UTF-8"):
        Manifest.read(manifest)


NASTY = {
    "lines": "a ball\nrolls\r\nover sand",
    "separators": "a ball\u2028rolls\x85on",
    "colours": "\x1b[31ma ball\x1b[0m",
    "a title": "\x1b]0;owned\x07ball",
    "an 8-bit escape": "\x9b2Ja ball",
    "a backspace": "good\b\b\b\bevil",
    "right to left": "a \u202egnp.exe\u202c",
    "half a character": "a \ud800 ball",
}


@pytest.mark.parametrize("words", NASTY.values(), ids=NASTY)
def test_foreign_words_keep_a_table_whole_and_command_no_terminal(service: Any, words: str) -> None:
    sent = words.encode("utf-8", "replace").decode() if "\ud800" in words else words
    job = service.job(caption=sent, metadata={"note": sent}, error={"code": "internal", "message": sent}, status="failed")
    video = service.video(prompt=sent)
    service.on("GET", "/v1/tuning-jobs", service.page(job, service.job(id="j2", caption="plain")))
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(job))
    service.on("GET", "/v1/tuning-jobs/j1/logs", service.problem(404, "job_not_found", f"There is no job {sent!s}."))
    service.on("GET", "/v1/videos", service.page(video))
    service.on("GET", "/v1/videos/v1", service.ok(video))
    service.on("GET", "/v1/batches/b", service.problem(404, "batch_not_found", sent))
    asked = (["jobs", "list"], ["jobs", "show", "j1"], ["videos", "list"], ["videos", "show", "v1"])
    for command in (*asked, ["jobs", "logs", "j1"], ["jobs", "summary", "--batch", "b"]):
        result = CliRunner().invoke(_app.app, command)
        shown = result.stdout + result.stderr
        commands = {char for char in shown if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")}
        assert shown and commands == {"\n"}, (command, shown)
        assert not set("\u202e\u202c") & set(shown)
    assert len(CliRunner().invoke(_app.app, ["jobs", "list"]).stdout.splitlines()) == 3
    assert len(CliRunner().invoke(_app.app, ["videos", "list"]).stdout.splitlines()) == 2


def test_wide_characters_do_not_shift_the_columns(service: Any) -> None:
    jobs = [service.job(id="j1", model="red-ball", batch=None, caption=""), service.job(id="球球", model="x", caption="")]
    service.on("GET", "/v1/tuning-jobs", service.page(*jobs))
    lines = CliRunner().invoke(_app.app, ["jobs", "list"]).stdout.splitlines()
    assert lines[1].index("queued") == lines[2].index("queued") + 2  # two characters that take four columns
