"""Keys that come and go while the gateway runs, limits on how often they are used, and MLflow behind them."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from services.api.exposure import check_credentials
from services.api.http.errors import ApiError
from services.api.keys import KeyFile, make_key
from services.api.rate_limit import RateLimiter
from services.cli.keys import app
from services.settings import Settings
from tav.errors import InvalidConfig
from tav.probe import ClipLimits
from tav_client import RateLimited, TavClient, Unauthorized
from tav_client.schemas import VideoCreate
from tests.api.conftest import Gateway
from tests.eventually import eventually


def tav_keys(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run `tav keys …`; return what it prints."""
    with pytest.raises(SystemExit) as ended:
        app(args=list(words))
    out = capsys.readouterr()
    assert ended.value.code in (0, None), out.err
    return out.out.strip()


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, registry_settings: RegistrySettings) -> Iterator[str]:
    """The file of keys, on disk and in S3."""
    if request.param == "file":
        yield str(tmp_path / "keys" / "api-keys.json")
        return
    uri = f"s3://{registry_settings.s3_bucket}/operator/{uuid.uuid4().hex}.json"
    with pytest.MonkeyPatch.context() as patch:
        for name, text in Settings.model_validate(registry_settings.model_dump()).environment().items():
            if name.startswith("TAV_S3"):
                patch.setenv(name, text)
        yield uri
    ObjectStore(registry_settings).delete(uri)


def status(gateway: Gateway, key: str) -> int:
    return gateway.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def wait_for_status(expected: int, gateway: Gateway, key: str) -> None:
    eventually(lambda: status(gateway, key) == expected, lambda: f"it stays {status(gateway, key)}")


def test_keys_are_made_and_revoked_while_the_gateway_runs_and_others_keep_working(
    start_gateway: Callable[..., Gateway], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tav_keys("create", "--tenant", "alice", "--file", place, "--note", "her notebook", capsys=capsys)
    gateway = start_gateway(api_keys_file=place)
    assert status(gateway, old) == 200
    new = tav_keys("create", "--tenant", "alice", "--days", "90", "--file", place, capsys=capsys)
    wait_for_status(200, gateway, new)
    assert status(gateway, old) == 200  # both are valid while clients change over
    shown = tav_keys("list", "--file", place, capsys=capsys).splitlines()
    assert len(shown) == 2 and "alice" in shown[0] and "her notebook" in shown[0] and "expires" in shown[1]
    tav_keys("revoke", old.split("_")[1], "--file", place, capsys=capsys)
    wait_for_status(401, gateway, old)
    assert status(gateway, new) == 200


def test_nothing_from_which_a_key_could_be_used_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "keys.json"
    key = tav_keys("create", "--file", str(place), capsys=capsys)
    stored = place.read_text()
    assert key not in stored and key.split("_", 2)[2] not in stored
    assert place.stat().st_mode & 0o777 == 0o600
    settings = Settings(api_keys_file=str(place))
    assert key.split("_", 2)[2] not in json.dumps(settings.environment())


def test_a_key_ends_with_its_days(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    place = str(tmp_path / "keys.json")
    (key, record), (over, ended) = make_key("alice", days=1), make_key("alice", days=1)
    expired = ended.model_copy(update={"expires_at": time.time() - 1})
    KeyFile(place, Settings()).write({record.id: record, expired.id: expired})
    gateway = start_gateway(api_keys_file=place)
    assert (status(gateway, key), status(gateway, over)) == (200, 401)


def test_a_key_that_is_refused_is_told_why_and_one_that_is_missing_that_it_is(
    start_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    place = str(tmp_path / "keys.json")
    (key, record), (over, ended) = make_key("alice", operator=True), make_key("alice", days=3)
    expired = ended.model_copy(update={"expires_at": 86_400.0})
    KeyFile(place, Settings()).write({record.id: record, expired.id: expired})
    gateway = start_gateway(api_keys_file=place)
    of_another = make_key("alice")[0]
    forged = f"tav_{expired.id}_{of_another.split('_', 2)[2]}"  # who has only the id does not learn that the key has expired

    def refusal_of(path: str, authorization: str | None) -> str:
        answer = gateway.http.get(path, headers={"Authorization": authorization} if authorization else {})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        return answer.json()["detail"]

    for path in ("/v1/models", "/mlflow/"):
        for wrong in ("wrong", of_another, key[:-1], key.upper(), forged):
            assert refusal_of(path, f"Bearer {wrong}").startswith("This key is not known here: it was mistyped or revoked")
        assert refusal_of(path, f"Bearer {over}").startswith("This key expired on 1970-01-02 00:00 UTC: ask the operator")
    for missing in (None, "Bearer", f"Token {key}"):
        assert refusal_of("/v1/models", missing).startswith("This call needs a key: send 'Authorization: Bearer KEY'")
        assert refusal_of("/mlflow/", missing).startswith("This page needs an operator's key")
    assert status(gateway, key) == 200


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e9"])
def test_a_key_that_would_never_be_valid_or_always_is_not_made(
    tmp_path: Path, days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "keys.json"
    with pytest.raises(SystemExit) as ended:
        app(args=["create", "--file", str(place), "--days", days])
    out = capsys.readouterr()
    assert (ended.value.code, out.out, place.exists()) == (1, "", False)
    assert "give a number above 0" in out.err and "Traceback" not in out.err


def test_keys_that_cannot_be_read_keep_the_gateway_from_starting_and_a_running_one_keeps_those_it_knows(
    start_gateway: Callable[..., Gateway], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "keys.json"
    key, record = make_key("alice")
    KeyFile(str(place), Settings()).write({record.id: record})
    gateway = start_gateway(api_keys_file=str(place))
    place.write_text("half a fi")
    with pytest.raises(InvalidConfig, match="no file of API keys"):
        check_credentials(Settings(api_keys_file=str(place)))
    eventually(lambda: "the API keys cannot be read again" in caplog.text, "it has not looked")
    assert status(gateway, key) == 200
    place.unlink()
    wait_for_status(401, gateway, key)


def test_a_tenants_name_is_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no tenant's name"):
        make_key("Team One")
    with pytest.raises(SystemExit):
        app(args=["revoke", "0000aaaa", "--file", str(tmp_path / "none.json")])
    assert "no key 0000aaaa" in capsys.readouterr().err


def test_too_many_requests_of_one_tenant_are_told_when_to_come_again_and_another_passes(
    start_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    place = str(tmp_path / "keys.json")
    (alice, a), (bob, b) = make_key("alice"), make_key("bob")
    KeyFile(place, Settings()).write({a.id: a, b.id: b})
    gateway = start_gateway(api_keys_file=place, requests_per_minute=3)

    def post_video(key: str) -> httpx.Response:
        return gateway.http.post("/v1/videos", content=b"{", headers={"Authorization": f"Bearer {key}"})

    assert [post_video(alice).status_code for _ in range(3)] == [415] * 3  # it costs little, and counts
    refused = post_video(alice)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 20 and 0 < int(refused.headers["retry-after-ms"]) <= 20_000
    assert post_video(bob).status_code == 415
    with TavClient(str(gateway.http.base_url), api_key=alice, max_retries=0) as client, pytest.raises(RateLimited):
        list(client.models.list())
    with TavClient(str(gateway.http.base_url), api_key="tav_00000000_x") as client, pytest.raises(Unauthorized):
        list(client.models.list())


def test_a_tenants_requests_fill_up_again_evenly() -> None:
    now = [0.0]
    limiter = RateLimiter(60, lambda: now[0])
    for _ in range(60):
        limiter.count("alice")
    for moment, passes in ((0.5, False), (1.0, True), (1.5, False), (3600.0, True)):
        now[0] = moment
        if passes:
            limiter.count("alice")
        else:
            with pytest.raises(ApiError) as refused:
                limiter.count("alice")
            assert refused.value.headers["retry-after-ms"] == "500"
    for _ in range(59):
        limiter.count("alice")
    with pytest.raises(ApiError):
        limiter.count("alice")


def test_a_video_may_not_have_more_pixels_than_a_clip(start_gateway: Callable[..., Gateway], version: Any) -> None:
    gateway = start_gateway(clip_limits=ClipLimits(max_pixels=64 * 64))
    request = VideoCreate(model=version.name, prompt="a ball", use_inverted_latents=False, size=(128, 64))
    answer = gateway.http.post("/v1/videos", json=request.model_dump(mode="json", exclude_none=True))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request") and "pixels" in answer.json()["detail"]
    assert not gateway.sampler.requests


# MLflow


@pytest.fixture
def mlflow_keys(start_gateway: Callable[..., Gateway], tmp_path: Path) -> tuple[Gateway, str, str]:
    """A gateway with keys, an operator's key and a tenant's."""
    place = str(tmp_path / "keys.json")
    (operator, o), (tenant, t) = make_key("staff", operator=True), make_key("alice")
    KeyFile(place, Settings()).write({o.id: o, t.id: t})
    return start_gateway(api_keys_file=place), operator, tenant


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()}


def test_mlflow_opens_to_an_operators_key_alone(mlflow_keys: tuple[Gateway, str, str]) -> None:
    gateway, operator, tenant = mlflow_keys
    for path in ("/mlflow/", "/mlflow/ajax-api/2.0/mlflow/experiments/search?max_results=5", "/mlflow/health"):
        refused = gateway.http.get(path)
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        assert gateway.http.get(path, headers=basic("wrong")).status_code == 401
        assert gateway.http.get(path, headers={"Authorization": "Basic ?"}).status_code == 401
        assert gateway.http.get(path, headers=basic(tenant)).status_code == 403
        assert gateway.http.get(path, headers=basic(operator)).status_code == 200
        assert gateway.http.get(path, headers={"Authorization": f"Bearer {operator}"}).status_code == 200
    assert gateway.http.get("/mlflow", headers=basic(operator)).headers["location"].startswith("/mlflow/#/experiments/")
    assert "<title>MLflow</title>" in gateway.http.get("/mlflow/", headers=basic(operator)).text


def test_mlflows_own_client_works_through_the_proxy(
    mlflow_keys: tuple[Gateway, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, operator, tenant = mlflow_keys
    client = MlflowClient(f"{gateway.http.base_url}/mlflow".replace("//mlflow", "/mlflow"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", operator)
    experiment = client.create_experiment(f"door-{uuid.uuid4().hex[:8]}")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "loss", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", tenant)
    with pytest.raises(MlflowException, match="403"):
        client.get_run(run.info.run_id)


def test_another_sites_page_cannot_use_an_operators_browser(mlflow_keys: tuple[Gateway, str, str]) -> None:
    gateway, operator, _ = mlflow_keys
    url, body = "/mlflow/ajax-api/2.0/mlflow/experiments/create", {"name": f"forged-{uuid.uuid4().hex[:8]}"}
    for origin, expected in (("https://evil.example", 403), ("null", 403), (str(gateway.http.base_url).rstrip("/"), 200)):
        answer = gateway.http.post(url, json=body, headers={**basic(operator), "Origin": origin})
        assert answer.status_code == expected, (origin, answer.text)


def test_without_keys_only_this_machines_names_are_answered(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(allowed_hosts=["tav.internal"])

    def status_for(host: str, path: str) -> int:
        return gateway.http.get(path, headers={"Host": host}).status_code

    for path in ("/v1/models", "/mlflow/health"):
        for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "tav.internal", "TAV.internal:443"):
            assert status_for(host, path) == 200, host
        for host in ("evil.example", "localhost.evil.example", "evil.example:8000", "10.0.0.1", "[::1", ""):
            assert status_for(host, path) == 403, host


def test_mlflow_answers_to_no_other_hosts_name(registry_settings: RegistrySettings) -> None:
    url = registry_settings.mlflow_tracking_uri
    assert httpx.get(url, trust_env=False).status_code == 200
    for host in ("evil.example", "192.168.1.7:5000"):
        assert httpx.get(url, headers={"Host": host}, trust_env=False).status_code == 403


def test_the_proxy_says_so_while_mlflow_is_away(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(mlflow_tracking_uri="http://127.0.0.1:9")
    answer = gateway.http.get("/mlflow/")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
