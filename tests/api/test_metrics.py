"""GET /v1/tuning-jobs/{id}/metrics gives the curves of a job's run."""

from __future__ import annotations

from itertools import pairwise

from tav_client import TavClient
from tests.api.conftest import Gateway


def logged(gateway: Gateway, mp4: bytes, points: list[tuple[str, float, int, int]]) -> str:
    """Submit a job and log metrics to its run; return its id."""
    job: str = gateway.submit(mp4, {"caption": "a red square"}).json()["id"]
    gateway.backends.jobs.log_metrics(job, points)
    return job


def test_curves_are_in_order_of_steps_and_what_a_later_attempt_repeats_counts_once(gateway: Gateway, mp4: bytes) -> None:
    first = [("loss", 1.0 / step, step, 1000 * step) for step in (1, 2, 3)]
    resumed = [("loss", 0.5, 3, 9000), ("loss", 0.25, 4, 9500), ("clip.faithfulness", 0.9, 4, 9600)]
    job = logged(gateway, mp4, [*resumed, *first])
    with TavClient(str(gateway.http.base_url)) as client:
        curves = client.jobs.get(job).metrics().data
    assert [(point.step, point.value) for point in curves["loss"]] == [(1, 1.0), (2, 0.5), (3, 0.5), (4, 0.25)]
    assert (curves["loss"][2].timestamp, len(curves["clip.faithfulness"])) == (9.0, 1)


def test_long_curves_are_thinned_evenly_and_keep_their_ends(gateway: Gateway, mp4: bytes) -> None:
    job = logged(gateway, mp4, [("loss", float(step), step, step) for step in range(1, 1001)])
    points = gateway.http.get(f"/v1/tuning-jobs/{job}/metrics", params={"points": 10}).json()["data"]["loss"]
    steps = [point["step"] for point in points]
    assert len(steps) == 10 and (steps[0], steps[-1]) == (1, 1000)
    assert max(b - a for a, b in pairwise(steps)) <= 112


def test_a_value_that_is_no_number_is_null_and_a_job_without_metrics_has_none(gateway: Gateway, mp4: bytes) -> None:
    job = logged(gateway, mp4, [("loss", float("nan"), 1, 1000), ("loss", 0.5, 2, 2000)])
    curve = gateway.http.get(f"/v1/tuning-jobs/{job}/metrics").json()["data"]["loss"]
    assert [point["value"] for point in curve] == [None, 0.5]
    quiet = gateway.submit(mp4, {"caption": "a red square"}).json()["id"]
    assert gateway.http.get(f"/v1/tuning-jobs/{quiet}/metrics").json()["data"] == {}


def test_a_job_that_is_not_there_has_no_metrics(gateway: Gateway) -> None:
    answer = gateway.http.get(f"/v1/tuning-jobs/{'0' * 32}/metrics")
    assert (answer.status_code, answer.json()["code"], answer.json()["category"]) == (404, "job_not_found", "user")
