"""Runs of a suite on this machine: what they make, that they go on where they stopped, and what the report shows."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tav.errors import InvalidConfig
from tav.eval.layout import pictures_in, read_frames
from tav.eval.local import run
from tav.eval.plan import Plan
from tav.eval.scores import ScoreConfig
from tests.eval.test_layout import write_loveu
from tests.tav.conftest import write_random_base

QUICK = {"tune.steps": 2, "invert.num_inference_steps": 2, "sample.num_inference_steps": 2, "sample.guidance_scale": 2.0}
TWO_BY_TWO = {(clip, edit) for clip in ("gold-fish", "swans") for edit in ("style", "object")}


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("bases") / "small", seed=5)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Plan:
    """Two clips × two edits by the tuned model and one baseline."""
    return Plan(
        suite=str(write_loveu(tmp_path_factory.mktemp("data") / "tgve")),
        out=tmp_path_factory.mktemp("out") / "run",
        methods=("tuned", "no_inversion"),
        edits=("style", "object"),
        clip_options={"num_frames": 4, "size": (16, 16)},
        base=str(small_base),
        overrides=QUICK,
        threads=1,
    )


@pytest.fixture(scope="module")
def report(plan: Plan, clip_model: Path) -> Path:
    """The report of a whole run, scored by CLIP too."""
    return run(replace(plan, scores=ScoreConfig(clip_model=str(clip_model))), "tav eval run --suite tgve", lambda _: None)


class Page(HTMLParser):
    """Collects texts and pictures, and checks that every tag that is opened is closed."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.pictures: list[Image.Image] = []
        self.links: list[str] = []
        self.feed(path.read_text())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("href", "src") if name in given]
        if tag == "img":
            head, _, data = (given["src"] or "").partition(",")
            assert head == "data:image/jpeg;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(out: Path, method: str = "tuned", seed: int = 0) -> dict[tuple[str, str], Path]:
    """Videos on disk by clip and edit."""
    folders = (out / "videos" / method / f"seed-{seed}").glob("*/*/*")
    return {(f.parent.name, f.name): f for f in folders if not f.name.startswith(".")}


def test_videos_lie_in_the_layout_and_are_as_long_and_large_as_the_clip(plan: Plan, report: Path) -> None:
    assert report == plan.out / "report.html"
    for method in plan.methods:
        videos = made(plan.out, method)
        assert set(videos) == TWO_BY_TWO
        assert videos["gold-fish", "style"].parts[-3:] == ("DAVIS_480p", "gold-fish", "style")
        for folder in videos.values():
            assert [path.name for path in pictures_in(folder)] == [f"0000{i}.jpg" for i in range(4)]
            assert read_frames(folder).shape == (4, 16, 16, 3)


def test_the_summary_has_every_video_with_its_scores_and_what_it_was_made_with(plan: Plan, report: Path) -> None:
    summary = json.loads((plan.out / "summary.json").read_text())
    assert len(summary["videos"]) == 2 * 4
    scores = {"frame_consistency", "textual_faithfulness", "warping_error", "flow_agreement"}
    for video in summary["videos"]:
        assert set(video["scores"]) == scores
        assert -1 <= video["scores"]["flow_agreement"] <= 1
    every = summary["means"]["tuned"]["all edits"]["frame_consistency"]
    consistencies = [v["scores"]["frame_consistency"] for v in summary["videos"] if v["method"] == "tuned"]
    assert every["mean"] == pytest.approx(sum(consistencies) / 4)
    assert every["low"] <= every["mean"] <= every["high"]
    assert (every["videos"], every["clips"]) == (4, 2)
    assert summary["run"]["settings"]["overrides"] == QUICK
    assert len(summary["run"]["settings"]["base_fingerprint"]) == 64
    assert {"torch", "diffusers", "opencv-python-headless"} <= set(summary["run"]["visits"][0]["versions"])


def test_the_report_is_one_file_with_tables_sheets_and_settings(plan: Plan, report: Path) -> None:
    page = Page(report)
    text = " ".join(page.texts)
    for words in (
        "tuned",
        "no_inversion",
        "style",
        "object",
        "all edits",
        "tav eval run --suite tgve",
        "opencv-python-headless",
    ):
        assert words in text, words
    assert "sampled from Gaussian noise instead of the inverted latents" in text
    assert "Difference from tuned on the same cases" in text
    assert "Gold fish, ink style" in text and "source: Gold fish are swimming" in text
    assert re.search(r"\d\.\d{4} … \d\.\d{4}", text), "an interval of the frame consistency"
    assert len(page.pictures) == 4 * (1 + len(plan.methods))  # the source and each method, of each edit
    assert {picture.size for picture in page.pictures} == {(4 * 98 - 2, 96)}
    assert all(link.startswith("data:") for link in page.links)


def test_a_second_run_makes_nothing_again_and_adds_what_is_new(plan: Plan, report: Path, clip_model: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in plan.out.glob("videos/**/*.jpg")}
    lines: list[str] = []
    more = replace(plan, edits=("style", "object", "background"), scores=ScoreConfig(clip_model=str(clip_model)))
    run(more, "again", lines.append)
    assert len(lines) == 2 * 2  # two clips by two methods, the new edit alone
    assert all("background" in line for line in lines)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [visit["made"] for visit in json.loads((plan.out / "run.json").read_text())["visits"]] == [8, 4]


def test_videos_of_other_settings_or_prompts_are_not_taken_for_these(plan: Plan, report: Path, small_base: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"holds videos made with overrides .* give another --out"):
        run(replace(plan, overrides=QUICK | {"tune.steps": 3}), "other", lambda _: None)
    advice = small_base / "tav.json"
    advice.write_text('{"sample": {"strength": 0.9}}')
    try:
        with pytest.raises(InvalidConfig, match=r"holds videos made with the base's recommended settings .*'strength': 0.9"):
            run(plan, "other", lambda _: None)
    finally:
        advice.unlink()
    record = plan.out / "records" / "tuned" / "seed-0" / "DAVIS_480p" / "gold-fish" / "style.json"
    kept = record.read_text()
    record.write_text(kept.replace("Gold fish, ink style", "Gold fish, crayon"))
    try:
        with pytest.raises(InvalidConfig, match="was made of 'Gold fish, crayon', the suite now asks 'Gold fish, ink style'"):
            run(plan, "other", lambda _: None)
    finally:
        record.write_text(kept)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methods": ("tuned", "magic")}, "there is no method magic; there are tuned,"),
        ({"suite": "/nowhere"}, "no suite '/nowhere': give 'offline'"),
        ({"overrides": {"tune.speed": 1}}, r"there is no setting tune\.speed; there are clip\.num_frames"),
        ({"overrides": {"tune.steps": 0}}, r"tune\.steps must be 1 or more, not 0"),
        (
            {"submissions": {"theirs": Path("/nowhere")}},
            "theirs has no video of gold-fish style: /nowhere/DAVIS_480p/gold-fish/style",
        ),
    ],
)
def test_what_cannot_be_run_is_said(plan: Plan, tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        run(replace(plan, out=tmp_path / "out", **{"methods": ()} | change), "x", lambda _: None)


def test_videos_made_elsewhere_are_scored_beside_the_methods(plan: Plan, report: Path, tmp_path: Path) -> None:
    theirs = plan.out / "videos" / "no_inversion" / "seed-0"  # in the layout, as anyone's would be
    out = tmp_path / "out"
    run(replace(plan, out=out, methods=(), submissions={"theirs": theirs}), "x", lambda _: None)
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["means"]) == ["theirs"]
    ours = json.loads((plan.out / "summary.json").read_text())["means"]["no_inversion"]["style"]["warping_error"]
    assert summary["means"]["theirs"]["style"]["warping_error"] == ours


def test_every_seed_is_made_and_tells_apart(plan: Plan, tmp_path: Path) -> None:
    seeds = replace(plan, out=tmp_path / "out", methods=("no_inversion",), seeds=(0, 1), clips=("swans",), edits=("style",))
    run(seeds, "x", lambda _: None)
    first, second = (read_frames(made(seeds.out, "no_inversion", seed)["swans", "style"]) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_what_is_missing(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["eval", "run", "--suite", plan.suite, "--out", str(out), "--methods", "tuned", "--edits", "style,object"]
    words += ["--num-frames", "4", "--size", "16x16", "--base", plan.base, "--threads", "1"]
    words += [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    begin = "from tav_client.cli import main; main()"
    with subprocess.Popen([sys.executable, "-u", "-c", begin, *words], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(2):
            assert process.stdout is not None
            process.stdout.readline()
        process.kill()
    before = {path: path.stat().st_mtime_ns for folder in made(out).values() for path in folder.glob("*.jpg")}
    assert 2 * 4 <= len(before) < 4 * 4
    lines: list[str] = []
    run(replace(plan, out=out, methods=("tuned",)), "on", lines.append)
    assert len(lines) == 4 - len(before) // 4
    assert set(made(out)) == TWO_BY_TWO
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_processes_make_the_same_videos_as_one(plan: Plan, report: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(replace(plan, out=out, methods=("tuned",), processes=2), "x")
    for key, folder in made(out).items():
        assert (read_frames(folder) == read_frames(made(plan.out)[key])).all()
