"""GET /v1/bases says what a request may ask for, and what it gets that leaves a field out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tav.bases import recommended
from tav_client import TavClient, schemas
from tav_client.cli import main
from tests.api.conftest import Gateway


def test_the_bases_come_with_their_defaults_the_default_one_first(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(bases=["CompVis/stable-diffusion-v1-4"], gpu_types=["H100"], max_gpus_per_job=4)
    with TavClient(str(gateway.http.base_url)) as client:
        offer = client.bases()
    assert [(base.id, base.default) for base in offer.data] == [("offline", True), ("CompVis/stable-diffusion-v1-4", False)]
    shipped, published = (base.defaults for base in offer.data)
    for part, values in recommended("offline").items():
        assert values.items() <= shipped[part].items()
    assert (published["tune"]["steps"], published["clip"]["num_frames"], published["clip"]["size"]) == (500, 32, [512, 512])
    assert (offer.limits.gpus, offer.choices.gpu_type, offer.captions) == (4, ["H100"], False)
    assert offer.limits.clip_bytes == gateway.backends.settings.clip_limits.max_bytes


@pytest.mark.parametrize("name", ["scheduler", "format"])
def test_every_choice_of_a_video_is_accepted_and_no_other(gateway: Gateway, name: str) -> None:
    choices = gateway.http.get("/v1/bases").json()["choices"][name]
    for value in choices:
        schemas.VideoCreate.model_validate({"model": "ball", "prompt": "a ball", name: value})
    with pytest.raises(ValueError, match=" or ".join(f"'{value}'" for value in choices[-2:])):
        schemas.VideoCreate.model_validate({"model": "ball", "prompt": "a ball", name: "another"})


@pytest.mark.parametrize("name", ["attention", "group_norm"])
def test_every_choice_of_a_job_is_accepted(gateway: Gateway, name: str) -> None:
    for value in gateway.http.get("/v1/bases").json()["choices"][name]:
        schemas.TuningParams.model_validate({name: value})


def test_the_command_line_shows_them(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tav", "--url", str(gateway.http.base_url), "bases"])
    with pytest.raises(SystemExit) as end:
        main()
    text = capsys.readouterr().out
    assert end.value.code in (None, 0)
    assert "offline" in text and "dpmpp_2m" in text and "256 MiB" in text
