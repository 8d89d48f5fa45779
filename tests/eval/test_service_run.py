"""Which jobs a run on the service hands in and takes up again. The service itself is in tests/behaviour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.evaluation.run import run_on_service
from tav import Video
from tav.errors import InvalidConfig, TavError
from tav.eval.plan import Plan
from tav_client import JobFailed, JobStatus, TuningJob
from tav_client.schemas import ClipInfo, Failure, FailureCode, JobParams
from tests.eval.conftest import pan, texture
from tests.eval.test_layout import write_loveu


class Service:
    """Answers as a client does: jobs succeed but for the models in `broken`; videos are a panned texture."""

    base_url = "http://there:1"

    def __init__(self, broken: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.broken, self.jobs, self.videos = broken, self, SimpleNamespace(create=self.sample)
        self.failed: set[str] = set()
        self.handed_in: dict[str, dict[str, Any]] = {}
        self.sampled: list[dict[str, Any]] = []

    def create(self, clip: Path, **asked: Any) -> SimpleNamespace:
        assert clip.suffix == ".mp4"
        key = asked["idempotency_key"]
        if key not in self.handed_in and asked["model"] in self.broken:
            self.failed.add(key)
        self.handed_in.setdefault(key, asked)
        return self.get(asked["idempotency_key"])

    def get(self, id: str) -> SimpleNamespace:
        model = self.handed_in[id]["model"]
        failed = id in self.failed
        return SimpleNamespace(
            id=id,
            model_ref=f"{model}/1",
            status=JobStatus.failed if failed else JobStatus.succeeded,
            wait=lambda: self.fail(id) if failed else None,
        )

    def fail(self, id: str) -> None:
        clip = ClipInfo(uri="s3://b/c", sha256="0", width=8, height=8, num_frames=2, fps=8)
        error = Failure(code=FailureCode.out_of_memory, message="32 frames do not fit")
        known = {"id": id, "status": "failed", "created_at": 0.0, "caption": "c", "clip": clip, "base": "b", "model": "m"}
        raise JobFailed(TuningJob(**known, params=JobParams(), error=error))

    def sample(self, **asked: Any) -> SimpleNamespace:
        self.sampled.append(asked)
        seconds = SimpleNamespace(seconds="0.5")
        video = Video(pan(texture(), 1, 1, 4, 32), 8)
        return SimpleNamespace(save=lambda path: (video.save(path), path)[1], snapshot=seconds)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_loveu(tmp_path_factory.mktemp("data") / "tgve")


@pytest.fixture
def plan(suite: Path, tmp_path: Path) -> Plan:
    return Plan(
        suite=str(suite),
        out=tmp_path / "out",
        methods=("tuned", "no_inversion", "no_st_attention"),
        edits=("style",),
        clip_options={"num_frames": 4},
        base="",
        overrides={"tune.steps": 7, "sample.guidance_scale": 3.0},
    )


def test_methods_that_differ_in_sampling_share_a_job_and_settings_reach_the_service(plan: Plan) -> None:
    service = Service()
    run_on_service(plan, service, "x", lambda _: None)  # type: ignore[arg-type]
    params = [asked["params"] for asked in service.handed_in.values() if asked["model"] == "eval-tgve-swans"]
    shared = {"num_frames": 4, "steps": 7, "seed": 0}
    assert params == [shared, shared | {"attention": "frame"}]
    swans = [asked for asked in service.sampled if asked["model"] == "eval-tgve-swans/1"]
    assert [asked.get("use_inverted_latents", True) for asked in swans] == [True, False, True]
    assert all((asked["prompt"], asked["guidance_scale"]) == ("Two swans, oil paint", 3.0) for asked in swans)
    assert (plan.out / "report.html").is_file()


def test_a_failed_job_holds_up_no_other_and_is_tried_anew_by_the_next_run(plan: Plan) -> None:
    service = Service(broken={"eval-tgve-gold-fish"})
    with pytest.raises(TavError, match=r"2 of the jobs failed, the rest is made; .*32 frames do not fit"):
        run_on_service(plan, service, "x", lambda _: None)  # type: ignore[arg-type]
    made = {folder.name for folder in plan.out.glob("videos/*/seed-0/*/*")}
    assert made == {"swans"}
    first = set(service.handed_in)
    service.broken = set()
    run_on_service(plan, service, "x", lambda _: None)  # type: ignore[arg-type]
    again = [service.handed_in[key]["model"] for key in service.handed_in if key not in first]
    assert again == ["eval-tgve-gold-fish"] * 2
    assert (plan.out / "report.html").is_file()


def test_an_interrupted_run_finds_its_jobs_again(plan: Plan) -> None:
    service = Service()

    def stop(line: str) -> None:
        if "no_inversion" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_service(plan, service, "x", stop)  # type: ignore[arg-type]
    handed_in = dict(service.handed_in)
    run_on_service(plan, service, "x", lambda _: None)  # type: ignore[arg-type]
    assert service.handed_in == handed_in


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methods": ("img2img",)}, "the service does not offer img2img: run it with --local"),
        ({"overrides": {"invert.num_inference_steps": 3}}, r"does not offer the setting invert\.num_inference_steps"),
    ],
)
def test_what_the_service_does_not_offer_is_said(plan: Plan, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        run_on_service(replace(plan, **change), Service(), "x", lambda _: None)  # type: ignore[arg-type]
