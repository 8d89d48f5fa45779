"""Batches: manifests, `client.batches`, and `tav jobs … --batch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tav_client
from tav_client import ClipsRefused, InvalidRequest, Manifest, TavClient, schemas
from tests.client.test_client_cli import tav

MANIFEST = """
batch: davis
defaults: {steps: 300, validation_prompts: [a robot is skiing]}
clips:
  - {clip: ski.mp4, caption: a man is skiing, model: man-skiing}
  - {clip: "s3://clips/surf.mp4", caption: a man is surfing, steps: 500, seed: 7}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "ski.mp4").write_bytes(b"ski")
    (tmp_path / "clips.yaml").write_text(MANIFEST)
    return tmp_path / "clips.yaml"


def batch(total: int = 2, **counts: int) -> schemas.Batch:
    done = not (counts.get("queued", 0) or counts.get("running", 0))
    return schemas.Batch(id="davis", total=total, counts=counts, finished=done)


def test_what_a_clip_says_wins_over_the_defaults(manifest: Path) -> None:
    read = Manifest.read(manifest)
    first, second = read.entries
    assert (read.batch, first.clip) == ("davis", manifest.parent / "ski.mp4")
    assert first.request.params.steps == 300 and first.request.model == "man-skiing"
    assert second.request.clip_uri == "s3://clips/surf.mp4" and second.clip is None
    assert (second.request.params.steps, second.request.params.seed) == (500, 7)
    assert second.request.validation_prompts == ["a robot is skiing"]
    assert {entry.request.batch for entry in read.entries} == {"davis"}


def test_a_folder_of_videos_and_texts_is_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "my clips"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.mp4").write_bytes(name.encode())
        (folder / f"{name}.txt").write_text(f"caption of {name}\n")
    read = Manifest.read(folder, defaults={"steps": 5})
    assert read.batch == "my-clips"
    assert [(e.request.caption, e.request.params.steps) for e in read.entries] == [("caption of a", 5), ("caption of b", 5)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clips: [", "is not YAML"),
        ("clips: []", "has no clips"),
        ("clip: []", "clip is none of batch, defaults, clips"),
        ("- a", "needs a list under `clips:`"),
        ("clips: [{caption: x}]", "clip 1: give it as"),
        (
            "clips: [{clip: ski.mp4, caption: x, stepz: 1}]",
            "clip 1 ski.mp4: There is no field params.stepz: perhaps steps",
        ),
        ("clips: [{clip: gone.mp4, caption: y}]", "clip 1 gone.mp4: There is no file"),
        ("defaults: [steps]\nclips: [{clip: ski.mp4, caption: x}]", "defaults is not `name: value` pairs"),
        ("clips: [{clip: ski.mp4, caption: x, params: 7}]", "clip 1 ski.mp4: params is not `name: value` pairs"),
        ("clips: [{clip: ski.mp4, caption: x, steps: 0}, {clip: ski.mp4, caption: ''}]", "caption"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_clip_at_fault(manifest: Path, text: str, says: str) -> None:
    manifest.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        Manifest.read(manifest)
    assert says in str(caught.value)


def test_submitting_a_manifest_again_uses_the_same_keys(service: Any, client: TavClient, manifest: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    for _ in range(2):
        assert [job.id for job in client.batches.submit(manifest)] == ["j1", "j1"]
    keys = [asked.headers["idempotency-key"] for asked in service.asked]
    assert keys[:2] == keys[2:] and keys[0] != keys[1]
    (manifest.parent / "ski.mp4").write_bytes(b"another")
    assert Manifest.read(manifest).entries[0].key("davis") != keys[0]


def test_nothing_is_sent_of_a_manifest_without_a_usable_clip(service: Any, manifest: Path) -> None:
    manifest.write_text("clips: [{clip: gone.mp4, caption: x}, {clip: ski.mp4, caption: x, steps: 0}]")
    result = tav("jobs", "submit", "--manifest", str(manifest))
    assert result.exit_code == 1
    assert "clip 1 gone.mp4: There is no file" in result.stderr and "clip 2 ski.mp4: params.steps" in result.stderr
    assert service.asked == []


def refusing(service: Any, *captions: str) -> Any:
    """Answers a submission: these captions are refused as the gateway refuses a clip that does not decode."""

    def answer(asked: Any) -> Any:
        caption = json.loads(asked.form["job"][1])["caption"]
        if caption in captions:
            return service.problem(422, "invalid_clip", f"The clip of {caption!r} has no video stream.")
        return service.ok(service.job(id=f"job-{caption}"), 201)

    return answer


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """A folder of five clips, of which the second has no readable caption and the fourth is refused by the service."""
    folder = tmp_path / "five"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.mp4").write_bytes(name.encode())
        (folder / f"{name}.txt").write_text(name)
    (folder / "b.txt").write_bytes("café".encode("cp1252"))
    return folder


def test_a_bad_clip_is_named_and_the_others_are_submitted(service: Any, client: TavClient, five: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", refusing(service, "d"))
    made = []
    with pytest.raises(ClipsRefused, match=r"2 of 5 clips of batch five were not submitted: clip 2 b\.mp4") as caught:
        made.extend(job.id for job in client.batches.submit(five))
    assert made == ["job-a", "job-c", "job-e"]
    assert [(refused.number, refused.clip) for refused in caught.value.refused] == [(2, "b.mp4"), (4, "d.mp4")]
    assert "save it as UTF-8" in caught.value.refused[0].reason and "no video stream" in caught.value.refused[1].reason


def test_a_bad_clip_is_named_on_the_command_line_and_the_exit_code_says_so(service: Any, five: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", refusing(service, "d"))
    result = tav("jobs", "submit", "--manifest", str(five))
    assert (result.exit_code, result.stdout.splitlines()) == (1, ["job-a", "job-c", "job-e"])
    assert "clip 2 b.mp4" in result.stderr and "clip 4 d.mp4: The clip of 'd' has no video stream." in result.stderr
    service.on("GET", "/v1/batches/five", service.ok(batch(total=3, succeeded=3)))
    service.on("GET", "/v1/tuning-jobs", service.page(service.job("succeeded", version=1)))
    waited = tav("jobs", "submit", "--manifest", str(five), "--wait")
    assert (waited.exit_code, waited.stdout) == (1, "red-ball/1\n")
    assert "clip 4 d.mp4" in waited.stderr


def test_a_file_that_may_not_be_read_keeps_no_other_clip_back(service: Any, client: TavClient, five: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", refusing(service))
    manifest = Manifest.read(five)
    (five / "c.mp4").unlink()  # since the manifest was read
    with pytest.raises(ClipsRefused) as caught:
        list(client.batches.submit(manifest))
    assert [refused.clip for refused in caught.value.refused] == ["b.mp4", "c.mp4"]


def test_a_service_that_takes_no_job_ends_the_submission_at_once(service: Any, client: TavClient, five: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", service.problem(401, "unauthorized", "This call needs a key."))
    with pytest.raises(tav_client.Unauthorized):
        list(client.batches.submit(five))
    assert len(service.asked) == 1


def test_a_manifest_is_submitted_and_followed_until_no_job_is_open(service: Any, manifest: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    ended = [service.job("succeeded", id="j1", version=1), service.job("failed", id="j2", error=NAN)]
    service.on("GET", "/v1/batches/davis", service.ok(batch(queued=2)), service.ok(batch(succeeded=1, failed=1)))
    service.on("GET", "/v1/tuning-jobs", service.page(*ended))
    result = tav("jobs", "submit", "--manifest", str(manifest), "--steps", "9", "--wait")
    assert result.stdout.splitlines() == ["red-ball/1", "j2 failed: nan_loss: Lower the rate."]
    assert result.exit_code == 1 and "1 of 2 jobs did not succeed" in result.stderr
    assert json.loads(service.asked[0].form["job"][1])["params"]["steps"] == 9


NAN = schemas.Failure(code=schemas.FailureCode.nan_loss, message="Lower the rate.")


def test_a_batch_is_summarised_and_cancelled_as_a_whole(service: Any) -> None:
    service.on("GET", "/v1/batches/davis", service.ok(batch(running=1, queued=1)))
    service.on("POST", "/v1/batches/davis/cancel", service.ok(batch(running=1, cancelled=1)))
    assert tav("jobs", "summary", "--batch", "davis").stdout == "davis: 2 jobs, 1 running, 1 queued\n"
    assert tav("jobs", "cancel", "--batch", "davis").stdout == "davis: 2 jobs, 1 running, 1 cancelled\n"
    assert tav("jobs", "cancel").exit_code == 2
    assert tav("jobs", "cancel", "j1", "--batch", "davis").exit_code == 2


def test_watching_a_batch_as_json_prints_each_jobs_snapshots(service: Any) -> None:
    service.on("GET", "/v1/batches/davis", service.ok(batch(total=1, succeeded=1)))
    service.on("GET", "/v1/tuning-jobs", service.page(service.job("succeeded", version=1)))
    result = tav("jobs", "watch", "--batch", "davis", "--json")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["succeeded"]
    assert service.asked[1].query["batch"] == "davis"
