"""Deployment of the services onto a running Ray. The command ends when the gateway reports ready.

`python -m services.platform.deploy`, with Ray's address in `RAY_ADDRESS` and the settings in `TAV_*`.
"""

from __future__ import annotations

import contextlib
import logging
import time

import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import LoggingConfig

from registry.migration import give_owners
from services.api.app import build
from services.api.haproxy import build_haproxy
from services.platform.settings import LOOPBACK
from services.retries import pauses, retry
from services.runtime import NAMESPACE, SCHEDULER
from services.settings import Settings
from services.tuning.scheduler.actor import start_scheduler

APPLICATION, FRONT = "tav", "haproxy"
_MLFLOW_SECONDS, _LONGEST_PAUSE_SECONDS = 300.0, 5.0


def deploy(settings: Settings) -> None:
    """Start the scheduler and the Serve application, which outlive this process, in place of those of an earlier call.

    Args:
        settings: travel with the actors; HAProxy listens on their `host` and `port`.
    """
    renew_scheduler(settings)
    address = {"host": LOOPBACK, "port": settings.serve_port}
    json_lines = LoggingConfig(encoding="JSON")  # of Serve itself, which does not read its environment variable for it
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=address, logging_config=json_lines)
    serve.run(build(settings), name=APPLICATION, route_prefix="/", logging_config=json_lines)
    serve.run(build_haproxy(settings), name=FRONT, route_prefix=None, logging_config=json_lines)


def renew_scheduler(settings: Settings) -> None:
    """Start a scheduler with these settings in place of the running one, if any. It takes up open jobs from their runs.

    What an earlier release stored is migrated before.

    Raises:
        StorageUnavailable: MLflow did not answer for minutes.
    """
    with contextlib.suppress(ValueError):  # there is none
        ray.kill(ray.get_actor(SCHEDULER, NAMESPACE), no_restart=True)
    deadline = time.monotonic() + _MLFLOW_SECONDS  # MLflow may still be starting
    retry(lambda: give_owners(settings), pauses(_LONGEST_PAUSE_SECONDS, deadline), after_pause=lambda: None)
    start_scheduler(settings)


def main() -> int:
    """Deploy with the environment's settings; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings()
    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    deploy(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
