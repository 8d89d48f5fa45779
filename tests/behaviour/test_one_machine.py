"""The whole service through what users have: `tav platform`, the client, HTTP, MLflow's own endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tav.probe import probe
from tav_client import Job, NotFound
from tav_client.schemas import Estimate, JobPhase, JobStatus
from tests.behaviour.conftest import CLIP, Service, platform

pytestmark = pytest.mark.slow

QUICK = {"num_inference_steps": 4}


@dataclass
class Tuned:
    """A tuned clip: the job as it ended, its estimate when it was submitted, and the phase and progress of every update."""

    job: Job
    submitted: Estimate | None
    updates: list[tuple[JobPhase | None, float]]


@pytest.fixture(scope="module")
def tuned(service: Service) -> Tuned:
    updates: list[tuple[JobPhase | None, float]] = []
    job = service.client.jobs.create(
        CLIP,
        caption="a red ball rolling on grass",
        model="ball",
        params={"steps": 12, "num_frames": 4},
        validation_prompts=["a blue ball rolling on grass", "a red box rolling on grass"],
    )
    submitted = job.snapshot.estimate
    job.wait(timeout=300, on_update=lambda snapshot: updates.append((snapshot.phase, snapshot.progress)))
    assert job.status == JobStatus.succeeded
    return Tuned(job.refresh(), submitted, updates)


@pytest.fixture(scope="module")
def video(service: Service, tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The id and the file of a video that was asked for asynchronously."""
    job = service.client.videos.create(model="ball", prompt="a blue ball rolling on grass", **QUICK)
    return job.id, job.save(tmp_path_factory.mktemp("video") / "async.mp4")


def sampled_again(service: Service) -> bytes:
    """The same video by the synchronous call."""
    content: bytes = service.client.videos.sync(model="ball/1", prompt="a blue ball rolling on grass", **QUICK)
    return content


def mlflow_run(service: Service, run_id: str) -> dict[str, Any]:
    run: dict[str, Any] = service.mlflow.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id}).json()["run"]
    return run


def test_a_job_tells_its_phases_and_its_progress_never_goes_back(tuned: Tuned) -> None:
    assert {JobPhase.tuning, JobPhase.inverting, JobPhase.validating} <= {phase for phase, _ in tuned.updates}
    assert [progress for _, progress in tuned.updates] == sorted(progress for _, progress in tuned.updates)


def test_the_estimate_at_the_submission_is_the_tuners(tuned: Tuned) -> None:
    submitted, measured = tuned.submitted, tuned.job.snapshot.estimate
    assert submitted and measured and measured.memory == submitted.memory and measured.fits
    assert (measured.device, measured.seconds) == (submitted.device, submitted.seconds)  # one probe of the machine, one answer


def test_a_jobs_version_has_its_files_in_s3(service: Service, tuned: Tuned) -> None:
    version = service.client.models.version("ball", tuned.job.version)
    assert version.job_id == tuned.job.id
    assert {"delta.safetensors", "latents.safetensors", "config.json", "MLmodel"} <= set(version.files)
    assert all(file.uri.startswith("s3://") for file in version.files.values())


def test_mlflow_has_a_jobs_metrics_and_plays_its_clip_and_its_samples(service: Service, tuned: Tuned, tmp_path: Path) -> None:
    for name in ("source.mp4", "samples/1.mp4", "samples/2.mp4"):
        (tmp_path / "played.mp4").write_bytes(service.artifact(tuned.job.id, name))
        assert probe(tmp_path / "played.mp4").codec == "h264"
    run = mlflow_run(service, tuned.job.id)
    assert run["info"]["status"] == "FINISHED"
    assert {"loss", "step_seconds"} <= {metric["key"] for metric in run["data"]["metrics"]}


def test_a_videos_run_in_mlflow_lies_below_its_jobs(service: Service, tuned: Tuned, video: tuple[str, Path]) -> None:
    tags = {tag["key"]: tag["value"] for tag in mlflow_run(service, video[0])["data"]["tags"]}
    assert (tags["mlflow.parentRunId"], tags["tav.kind"]) == (tuned.job.id, "video")


def test_a_sampler_draws_the_latents_that_the_tuner_drew_for_a_validation_prompt(service: Service, tuned: Tuned) -> None:
    prompt = "a red box rolling on grass"
    drawn = service.client.videos.create(model="ball", prompt=prompt).wait(timeout=300).snapshot
    config = service.client.models.version("ball", tuned.job.version).files["config.json"]
    validated = json.loads(service.objects.get_bytes(config.uri))["samples"][1]
    assert validated == {"prompt": prompt, "latents_sha256": drawn.latents_sha256}


def test_the_same_version_prompt_and_seed_give_the_same_bytes(service: Service, video: tuple[str, Path]) -> None:
    assert probe(video[1]).num_frames == 4
    assert sampled_again(service) == video[1].read_bytes()


def test_jobs_and_models_outlive_a_restart(service: Service, tuned: Tuned, video: tuple[str, Path]) -> None:
    platform("down", *service.where)
    service.up()
    assert service.client.jobs.get(tuned.job.id).status == JobStatus.succeeded
    assert sampled_again(service) == video[1].read_bytes()


def test_a_queued_and_a_running_job_are_cancelled_and_the_next_one_runs(service: Service) -> None:
    endless = service.client.jobs.create(CLIP, caption="a ball", params={"steps": 100_000, "num_frames": 2})
    waiting = service.client.jobs.create(CLIP, caption="a ball", params={"steps": 2, "num_frames": 2})
    last = service.client.jobs.create(CLIP, caption="a ball", model="after", params={"steps": 2, "num_frames": 2})
    for snapshot in service.client.jobs.events(endless.id):
        if snapshot.phase == JobPhase.tuning and snapshot.step > 1:
            break
    assert waiting.cancel().status == JobStatus.cancelled
    endless.cancel()
    for snapshot in service.client.jobs.events(endless.id):
        if snapshot.status.final:
            assert snapshot.status == JobStatus.cancelled
    assert last.wait(timeout=240).model_ref == "after/1"


def test_an_unknown_model_is_told_in_a_sentence(service: Service) -> None:
    with pytest.raises(NotFound, match="nobody"):
        service.client.videos.sync(model="nobody", prompt="a ball")


def test_status_tells_what_runs_and_a_second_up_changes_nothing(service: Service) -> None:
    rows = json.loads(platform("status", *service.where, "--json"))
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(("s3", "mlflow", "ray", "services"), "running")
    platform("up", *service.where)
    again = json.loads(platform("status", *service.where, "--json"))
    assert [row["pid"] for row in again] == [row["pid"] for row in rows]


def test_a_suite_runs_as_jobs_and_goes_on_where_it_stopped(service: Service, tmp_path: Path) -> None:
    suite, out = tmp_path / "suite", tmp_path / "out"
    suite.mkdir()
    (suite / "red-ball.mp4").write_bytes(CLIP.read_bytes())
    (suite / "prompts.csv").write_text(
        "Video name,Our GT caption,Object Change Caption\nred-ball,a red ball rolling on grass,a blue ball rolling on grass\n"
    )
    words = ["--url", service.client.base_url, "eval", "run", "--service", "--suite", str(suite), "--out", str(out)]
    words += ["--methods", "tuned,no_inversion", "--num-frames", "4"]
    words += ["--set", "tune.steps=2", "--set", "sample.num_inference_steps=4"]

    def run() -> str:
        command = [str(Path(sys.executable).with_name("tav")), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs() -> list[str]:
        return [job.id for job in service.client.jobs.list(model="eval-suite-red-ball")]

    run()
    videos = {
        method: out / "videos" / method / "seed-0" / "suite" / "red-ball" / "object" for method in ("tuned", "no_inversion")
    }
    assert {method: len(list(folder.glob("*.jpg"))) for method, folder in videos.items()} == {"tuned": 4, "no_inversion": 4}
    summary = json.loads((out / "summary.json").read_text())
    assert {video["method"] for video in summary["videos"]} == {"tuned", "no_inversion"}
    assert all(set(video["scores"]) == {"warping_error", "flow_agreement"} for video in summary["videos"])
    assert len(jobs()) == 1  # both methods sample one version

    kept = (videos["tuned"] / "00000.jpg").stat().st_mtime_ns
    for frame in videos["no_inversion"].iterdir():
        frame.unlink()
    videos["no_inversion"].rmdir()
    assert "no_inversion" in run()
    assert (videos["tuned"] / "00000.jpg").stat().st_mtime_ns == kept
    assert len(list(videos["no_inversion"].glob("*.jpg"))) == 4
    assert len(jobs()) == 1
