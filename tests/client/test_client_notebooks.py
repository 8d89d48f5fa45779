"""What a notebook shows: cells run in a real kernel, against the stand-in service."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from tav_client import AsyncTavClient, TavClient
from tests.client.test_client_commands import estimates
from tests.client.test_client_videos import BYTES, content

PLAYS = f"src='data:video/mp4;base64,{base64.b64encode(BYTES).decode()}'"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Runs a cell; what it shows, as messages of Jupyter's protocol."""
    manager, client = start_new_kernel(kernel_name="python3")

    def run(cell: str) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        reply = client.execute_interactive(cell, timeout=60, output_hook=shown.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return [message for message in shown if message["msg_type"] != "status"]

    run("import sys; from tav_client import AsyncTavClient, TavClient")
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def html(messages: list[dict[str, Any]], kind: str = "execute_result") -> list[str]:
    return [message["content"]["data"]["text/html"] for message in messages if message["msg_type"] == kind]


def test_progress_is_one_bar_that_moves(service: Any, kernel: Callable[[str], list[dict[str, Any]]]) -> None:
    tuning = [service.job("running", phase="tuning", step=i, total_steps=4, progress=i / 4, caption="<b>") for i in (1, 2, 3)]
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    service.on("GET", "/v1/tuning-jobs/j1/events", service.events(*tuning, service.job("succeeded", version=1)))
    messages = kernel(f"with TavClient({service.url!r}) as c: c.jobs.get('j1').wait(progress=True); None")
    assert [message["msg_type"] for message in messages if message["msg_type"] == "stream"] == []
    [first], moved = html(messages, "display_data"), html(messages, "update_display_data")
    assert [float(re.findall(r"value='([\d.]+)'", bar)[0]) for bar in (first, *moved)] == [0.25, 0.5, 0.75, 1.0]
    assert "tuning  1/4" in first and "red-ball/1" in moved[-1]
    places = {m["content"]["transient"]["display_id"] for m in messages if m["msg_type"].endswith("display_data")}
    assert len(places) == 1


@pytest.mark.parametrize("client", ["TavClient", "AsyncTavClient"])
def test_a_completed_video_plays_and_is_fetched_once(
    service: Any, kernel: Callable[[str], list[dict[str, Any]]], client: str
) -> None:
    service.on(
        "GET", "/v1/videos/v1", service.ok(service.video("in_progress", progress=40)), service.ok(service.video("completed"))
    )
    service.on("GET", "/v1/videos/v1/content", content())
    wait = "await " if client == "AsyncTavClient" else ""
    kernel(f"video = {wait}{client}({service.url!r}, api_key='k').videos.get('v1')")
    [unfinished] = html(kernel("video"))
    assert "<progress" in unfinished and "<video" not in unfinished
    [finished] = html(kernel(f"{wait}video.wait()"))
    assert PLAYS in finished and "a blue ball" in finished
    assert PLAYS in html(kernel("video"))[0]
    fetched = [asked for asked in service.asked if asked.path.endswith("/content")]
    assert [asked.headers.get("authorization") for asked in fetched] == ["Bearer k"]


def test_a_video_whose_content_is_gone_says_so_instead(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/videos/v1", service.ok(service.video("completed", prompt="<script>")))
    shown = client.videos.get("v1")._repr_html_()
    assert "There is no /v1/videos/v1/content" in shown and "&lt;script&gt;" in shown and "<script>" not in shown


def test_lists_are_tables_and_can_still_be_iterated_over(service: Any, client: TavClient) -> None:
    jobs = [service.job(id=f"j{number}", caption="<i>") for number in range(30)]
    service.on("GET", "/v1/tuning-jobs", service.page(*jobs[:25], cursor="c"), service.page(*jobs[25:]))
    listed = client.jobs.list()
    assert next(listed).id == "j0"
    shown = listed._repr_html_()
    assert [f">j{n}<" in shown for n in (0, 1, 20, 21)] == [False, True, True, False]
    assert shown.count("<progress") == 20 and "&lt;i&gt;" in shown and "There are more" in shown
    assert listed._repr_html_() == shown
    assert [job.id for job in listed] == [f"j{number}" for number in range(1, 30)]
    assert "There are none" in listed._repr_html_()


def test_every_kind_of_list_is_a_table(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/videos", service.page(service.video("completed", progress=100)))
    service.on("GET", "/v1/models", service.page(service.model()))
    service.on("GET", "/v1/models/red-ball/versions", service.page(service.version()))
    service.on("POST", "/v1/estimates", service.ok(estimates()))
    videos, models = client.videos.list()._repr_html_(), client.models.list()._repr_html_()
    assert "a blue ball" in videos and "100% completed" in videos and "<video" not in videos
    assert "red-ball" in models and "production: 1" in models
    assert "8 of 64x64" in client.models.versions("red-ball")._repr_html_()
    shown = client.jobs.estimate()._repr_html_()
    assert "zero_stage=3,offload_params" in shown and "3.0 GiB" in shown and shown.count("<tr>") == 3


async def test_the_asynchronous_lists_are_iterated_over_as_before(service: Any) -> None:
    service.on("GET", "/v1/models", service.page(service.model("a"), cursor="c"), service.page(service.model("b")))
    async with AsyncTavClient() as client:
        assert [model.name async for model in client.models.list()] == ["a", "b"]


def test_on_a_terminal_and_in_a_script_nothing_is_a_notebook(service: Any, client: TavClient, capsys: Any) -> None:
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    service.on("GET", "/v1/tuning-jobs/j1/events", service.events(service.job("succeeded", version=1)))
    import IPython

    assert IPython.get_ipython() is None
    client.jobs.get("j1").wait(progress=True)
    assert "succeeded" in capsys.readouterr().err
