"""One-shot: put the services onto a running Ray, and end when the gateway says that it is ready.

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

from registry.errors import StorageUnavailable
from registry.migration import give_owners
from services.api.app import build
from services.api.haproxy import front
from services.platform.settings import LOOPBACK
from services.runtime import NAMESPACE, SCHEDULER
from services.settings import Settings
from services.tuning.scheduler.actor import start_scheduler

log = logging.getLogger(__name__)

APPLICATION, FRONT = "tav", "haproxy"
_MLFLOW_SECONDS, _MLFLOW_PAUSE = 300.0, 5.0


def deploy(settings: Settings) -> None:
    """Start the scheduler and the Serve application; both outlive this process. Those of an earlier call are replaced.

    Args:
        settings: Travel with the actors; `host` and `port` are where HAProxy listens.
    """
    renew_scheduler(settings)
    address = {"host": LOOPBACK, "port": settings.serve_port}
    json_lines = LoggingConfig(encoding="JSON")  # Serve's own lines; its environment variable for that is not read
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=address, logging_config=json_lines)
    serve.run(build(settings), name=APPLICATION, route_prefix="/", logging_config=json_lines)
    serve.run(front(settings), name=FRONT, route_prefix=None, logging_config=json_lines)


def renew_scheduler(settings: Settings) -> None:
    """A scheduler with these settings in place of the one that is there, if any; jobs are taken up again from their runs.

    Raises:
        StorageUnavailable: MLflow does not answer for minutes.
    """
    with contextlib.suppress(ValueError):  # there is none
        ray.kill(ray.get_actor(SCHEDULER, NAMESPACE), no_restart=True)
    _migrate(settings)
    start_scheduler(settings)


def _migrate(settings: Settings) -> None:
    """Before anything works on it, what an earlier release kept is brought to this one's form; MLflow may still be starting."""
    deadline = time.monotonic() + _MLFLOW_SECONDS
    while True:
        try:
            give_owners(settings)
            return
        except StorageUnavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("what is kept cannot be looked at yet, trying again: %s", error)
            time.sleep(_MLFLOW_PAUSE)


def main() -> int:
    """Deploy with the environment's settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings()
    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    deploy(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
