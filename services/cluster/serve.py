"""What KubeRay's Serve configuration names: the gateway and samplers, with the scheduler begun beside them."""

from __future__ import annotations

from ray import serve

from services.api.app import build
from services.api.haproxy import front
from services.platform.deploy import renew_scheduler
from services.settings import Settings


def application(_: dict[str, str]) -> serve.Application:
    """The application of the environment's settings. Serve calls this on the cluster when its configuration is applied."""
    settings = Settings()
    renew_scheduler(settings)
    return build(settings)


def before(_: dict[str, str]) -> serve.Application:
    """HAProxy before Serve's proxy, likewise."""
    return front(Settings())
