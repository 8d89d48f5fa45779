"""One tenant's videos keep no other's waiting: limits and turns by tenant."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from services.sampling.errors import QueueFull, TooManyVideos
from services.sampling.turns import Turns
from services.settings import Settings
from tests.api.conftest import Gateway
from tests.api.test_ownership import HEADERS, create_resources, keys_file, model_name, status_and_code  # noqa: F401 - a fixture


def request_video(gateway: Gateway, who: str, model: str, prompt: str = "a blue ball", call: str = "") -> httpx.Response:
    return gateway.http.post(f"/v1/videos{call}", json={"model": model, "prompt": prompt}, headers=HEADERS[who])


@pytest.fixture
def start_fair(start_gateway: Callable[..., Gateway], keys_file: str) -> Callable[..., Gateway]:  # noqa: F811
    def start(**settings: Any) -> Gateway:
        return start_gateway(api_keys_file=keys_file, experiment=f"fair-{uuid.uuid4().hex[:8]}", **settings)

    return start


def wait_until_completed(gateway: Gateway, who: str, video_id: str) -> None:
    with gateway.http.stream("GET", f"/v1/videos/{video_id}/events", headers=HEADERS[who]) as stream:
        assert any('"completed"' in line for line in stream.iter_lines())


def test_a_tenant_with_too_many_waiting_videos_is_asked_to_wait_and_another_passes(
    start_fair: Callable[..., Gateway],
) -> None:
    gateway, model = start_fair(max_queued_videos_per_tenant=2), model_name()
    for who in ("alice", "bob"):
        create_resources(gateway, who, model)
    gateway.sampler.gate.clear()
    accepted = [request_video(gateway, "alice", model) for _ in range(3)]  # one is at the sampler, two wait
    assert [answer.status_code for answer in accepted] == [200] * 3
    for call in ("", "/sync"):
        refused = request_video(gateway, "alice", model, call=call)
        assert status_and_code(refused) == (429, "too_many_videos") and refused.headers["retry-after"]
    passed = request_video(gateway, "bob", model)
    assert passed.status_code == 200
    gateway.sampler.gate.set()
    wait_until_completed(gateway, "bob", passed.json()["id"])
    for answer in accepted:
        wait_until_completed(gateway, "alice", answer.json()["id"])
    assert request_video(gateway, "alice", model, call="/sync").status_code == 200  # the places are free again


def test_tenants_take_turns_at_the_sampler(start_fair: Callable[..., Gateway]) -> None:
    gateway, model = start_fair(), model_name()
    for who in ("alice", "bob"):
        create_resources(gateway, who, model)
    gateway.sampler.gate.clear()
    order = [("alice", f"a{n}") for n in range(4)] + [("bob", f"b{n}") for n in range(2)]
    videos = [(who, request_video(gateway, who, model, prompt).json()["id"]) for who, prompt in order]
    gateway.sampler.gate.set()
    for who, video_id in videos:
        wait_until_completed(gateway, who, video_id)
    assert [request.prompt for request, _ in gateway.sampler.requests[2:]] == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_a_deleted_video_gives_its_turn_to_the_next(start_fair: Callable[..., Gateway]) -> None:
    gateway, model = start_fair(), model_name()
    create_resources(gateway, "alice", model)
    gateway.sampler.gate.clear()
    first, waiting, last = (request_video(gateway, "alice", model, prompt).json()["id"] for prompt in ("a0", "a1", "a2"))
    for video_id in (waiting, first):
        assert gateway.http.delete(f"/v1/videos/{video_id}", headers=HEADERS["alice"]).status_code == 200
    gateway.sampler.gate.set()
    wait_until_completed(gateway, "alice", last)
    assert [request.prompt for request, _ in gateway.sampler.requests[1:]] == ["a0", "a2"]


def turns(**settings: Any) -> Turns:
    return Turns(Settings(api_keys_file="keys.json", **settings))


async def at_work(turns: Turns, stack: AsyncExitStack, tenant: str, base: str = "b") -> bool:
    """Whether a tenant's next video gets a place now; if so it keeps it."""
    try:
        async with asyncio.timeout(0.01):
            await stack.enter_async_context(turns.turn(tenant, base))
    except TimeoutError:
        return False
    return True


async def test_a_base_has_places_of_its_own_and_a_tenant_as_many_as_it_may() -> None:
    limited = turns(sampler_max_replicas=3, max_running_videos_per_tenant=2)
    async with AsyncExitStack() as stack:
        assert [await at_work(limited, stack, "alice") for _ in range(3)] == [True, True, False]
        assert not await at_work(limited, stack, "alice", "other")  # the limit is over all bases
        assert [await at_work(limited, stack, "bob") for _ in range(2)] == [True, False]
        assert await at_work(limited, stack, "bob", "other")
    async with AsyncExitStack() as stack:
        assert [await at_work(limited, stack, "alice") for _ in range(2)] == [True, True]  # all places were given back


async def test_all_tenants_together_may_fill_the_queue_and_no_one_alone() -> None:
    full = turns(max_queued_videos=5, max_queued_videos_per_tenant=3)
    for _ in range(3):
        full.admit("alice")
    with pytest.raises(TooManyVideos, match="3 videos of yours wait"):
        full.admit("alice")
    for _ in range(2):
        full.admit("bob")
    with pytest.raises(QueueFull, match="5 videos are waiting"):
        full.admit("carol")
    full.leave("alice")
    full.admit("carol")


async def test_without_keys_the_queue_is_everybodys() -> None:
    common = Turns(Settings(max_queued_videos=5, max_queued_videos_per_tenant=1))
    for _ in range(5):
        common.admit("default")
