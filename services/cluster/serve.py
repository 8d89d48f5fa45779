"""The applications that KubeRay's Serve configuration names. Serve builds them on the cluster when it is applied."""

from __future__ import annotations

from ray import serve

from services.api.app import build
from services.api.haproxy import build_haproxy
from services.platform.deploy import renew_scheduler
from services.settings import Settings


def application(_: dict[str, str]) -> serve.Application:
    """Start the scheduler, and return the application of gateway and samplers, both with the environment's settings."""
    settings = Settings()
    renew_scheduler(settings)
    return build(settings)


def haproxy(_: dict[str, str]) -> serve.Application:
    """Return the application of HAProxy, which stands before Serve's proxy."""
    return build_haproxy(Settings())
