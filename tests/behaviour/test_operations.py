"""What operators see of a real job and a real video: metrics in a real Prometheus, and one request's lines in every log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services import metrics
from services.platform.ports import any_free
from tav_client import APIConnectionError, TavClient
from tests.behaviour.conftest import CLIP, Service
from tests.eventually import eventually
from tests.observability.files import OBSERVABILITY, dashboard_queries, metrics_in

pytestmark = pytest.mark.slow

UNTOLD = {"ray_tav_gpu_memory_bytes", "ray_tav_attempts_lost_total"}
"""Metrics of what does not happen here: there is no GPU, and no attempt is lost."""


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with our configuration and rules, at the service's metrics; its HTTP API."""
    folder, port = tmp_path_factory.mktemp("prometheus"), any_free("127.0.0.1")
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(OBSERVABILITY / name) for name in config["rule_files"]]
    (found,) = config["scrape_configs"][0]["file_sd_configs"]
    found["files"] = [str(service.stack.ray_folder / Path(name).name) for name in found["files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            eventually(lambda: answers(http), lambda: (folder / "log").read_text())
            yield http
    finally:
        running.terminate()
        running.wait(20)


@dataclass
class Done:
    """A job and a video, and the ids of the requests that made them."""

    job: str
    video: str
    job_request: str = "the-jobs-request"
    video_request: str = "the-videos-request"


@pytest.fixture(scope="module")
def done(service: Service, prometheus: httpx.Client) -> Done:
    made = Done("", "")
    key = {"Authorization": f"Bearer {service.key}"}
    trust = httpx.create_ssl_context()
    with httpx.Client(base_url=service.client.base_url, headers=key, verify=trust, trust_env=False, timeout=300) as http:
        wanted = {"caption": "a red ball", "model": "watched", "params": {"steps": 3, "num_frames": 2}}
        files: dict[str, Any] = {"clip": CLIP.open("rb"), "job": (None, json.dumps(wanted), "application/json")}
        made.job = http.post("/v1/tuning-jobs", files=files, headers={"x-request-id": made.job_request}).json()["id"]
        assert service.client.jobs.get(made.job).wait(timeout=300).status == "succeeded"
        asked = {"model": "watched", "prompt": "a blue ball", "num_inference_steps": 3}
        answer = http.post("/v1/videos/sync", json=asked, headers={"x-request-id": made.video_request})
        made.video = answer.headers["x-tav-video-id"]
        assert http.get("/v1/models/nobody").status_code == 404
        assert http.get(f"/v1/tuning-jobs/{made.job}").json()["request_id"] == made.job_request
        assert http.get(f"/v1/videos/{made.video}").json()["request_id"] == made.video_request
    return made


def test_every_metric_of_a_job_and_a_video_comes_back_from_prometheus(done: Done, prometheus: httpx.Client) -> None:
    def untold() -> set[str]:
        return set(metrics.defined()) - UNTOLD - known(prometheus)

    eventually(lambda: not untold(), lambda: f"not exported: {untold()}")
    for query, least in (
        ('sum(ray_tav_jobs_ended_total{status="succeeded", code=""})', 1),
        ('sum(ray_tav_step_seconds_count{phase="tuning"})', 3),
        ('sum(ray_tav_videos_ended_total{status="completed"})', 1),
        ('sum(ray_tav_deltas_total{tier="store"})', 1),
        ("sum(ray_tav_sampling_seconds_sum)", 1e-9),
        ('sum(ray_tav_problems_total{code="model_not_found"})', 1),
    ):
        eventually(lambda query=query, least=least: value(prometheus, query) >= least, query)  # type: ignore[misc]
    for query, exactly in (("sum(ray_tav_samplers)", 1), ('sum(ray_tav_jobs{status="queued"})', 0)):
        eventually(lambda query=query, exactly=exactly: value(prometheus, query) == exactly, query)  # type: ignore[misc]


def test_every_query_of_the_dashboard_is_answered_and_asks_for_what_exists(done: Done, prometheus: httpx.Client) -> None:
    def answer(query: str) -> dict[str, Any]:
        found: dict[str, Any] = prometheus.get("/api/v1/query", params={"query": query}).json()
        assert found["status"] == "success", (query, found)
        return found["data"]

    for query in dashboard_queries():
        names = metrics_in(query)
        eventually(lambda names=names: names - UNTOLD <= known(prometheus), lambda query=query: query)  # type: ignore[misc]
        answered = answer(query)["result"]
        if not names & UNTOLD and "increase" not in query and "rate" not in query and not answered:  # these need a while
            eventually(lambda query=query: bool(answer(query)["result"]), lambda query=query: query)  # type: ignore[misc]


def test_prometheus_evaluates_our_alerts_and_none_goes_off(done: Done, prometheus: httpx.Client) -> None:
    def rules() -> list[dict[str, Any]]:
        (group,) = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        found: list[dict[str, Any]] = group["rules"]
        return found

    eventually(lambda: {rule["health"] for rule in rules()} == {"ok"}, lambda: str(rules()))
    assert {rule["name"] for rule in rules() if rule["state"] == "firing"} == set()

    def targets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
        return found

    # of one machine: its agent, the autoscaler, the dashboard
    eventually(lambda: [target["health"] for target in targets()] == ["up"] * 3, lambda: str(targets()))


def test_one_requests_lines_are_found_in_every_log_it_touched(done: Done, service: Service) -> None:
    def lines(request: str) -> list[dict[str, Any]]:
        logs = (service.stack.ray_folder / "session_latest" / "logs").rglob("*")
        texts = [path.read_text(errors="replace") for path in logs if path.is_file()]
        found = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{") and request in line]
        return [line for line in found if line.get("request_id") == request]

    def of(module: str, found: list[dict[str, Any]], **ids: str) -> set[int]:
        """The process that wrote lines there; each has the ids."""
        own = [line for line in found if line["filename"] == module]
        assert all(line.get(name) == text for line in own for name, text in ids.items()), own
        return {line["process"] for line in own}

    job = {"tuning_job": done.job, "tenant": "alice"}
    found = lines(done.job_request)
    gateway, scheduler, tuner = (of(module, found, **job) for module in ("job_maker.py", "open_jobs.py", "attempt.py"))
    assert len(gateway) == len(scheduler) == len(tuner) == 1 and len(gateway | scheduler | tuner) == 3
    assert [line["message"] for line in found if line["filename"] == "open_jobs.py"] == [
        f"job {done.job} is {status}" for status in ("queued, attempt 0", "running, attempt 1", "succeeded, attempt 1")
    ]
    assert of("replica.py", found) == gateway  # Serve's own line about the request
    found = lines(done.video_request)
    video = {"video": done.video, "tenant": "alice"}
    assert of("driver.py", found, **video) == gateway
    sampler = of("engine.py", found, **video)
    assert len(sampler) == 1 and sampler != gateway


def test_the_gateway_speaks_https_to_those_who_trust_its_certificate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(service.client.base_url)
    assert url.startswith("https://")
    assert list(service.client.models.list())
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https://", "http://") + "/healthz", trust_env=False)
    monkeypatch.delenv("SSL_CERT_FILE")
    with TavClient(url, max_retries=0) as stranger, pytest.raises(APIConnectionError, match=r"is not trusted.*SSL_CERT_FILE"):
        list(stranger.models.list())


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def known(prometheus: httpx.Client) -> set[str]:
    """Names of all metrics that have come."""
    names = prometheus.get("/api/v1/label/__name__/values").json()["data"]
    return {name for found in names for name in metrics_in(found)}


def value(prometheus: httpx.Client, query: str) -> float:
    """What a query answers; not a number while it has no series."""
    series = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(series[0]["value"][1]) if series else float("nan")
