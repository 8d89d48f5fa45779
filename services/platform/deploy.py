"""One-shot: put the services onto a running Ray, and end when the gateway says that it is ready.

`python -m services.platform.deploy`, with Ray's address in `RAY_ADDRESS` and the settings in `TAV_*`.
"""

from __future__ import annotations

import logging

import ray
from ray import serve

from services.api.app import build
from services.settings import Settings
from services.tuning.lease import NAMESPACE
from services.tuning.scheduler import start_scheduler

APPLICATION = "tav"


def deploy(settings: Settings) -> None:
    """Start the scheduler and the Serve application; both outlive this process.

    Args:
        settings: Travel with the actors; `host` and `port` are the gateway's.
    """
    start_scheduler(settings)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(build(settings), name=APPLICATION, route_prefix="/")


def main() -> int:
    """Deploy with the environment's settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings()
    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    deploy(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
