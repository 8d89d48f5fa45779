"""The one-machine stack: S3, MLflow, Ray and the services as daemons under one data directory.

config      ports and places
processes   daemons: start, find again, stop with everything they started
parts       what each part runs and when it is ready
stack       up, status, down
deploy      one-shot: the services onto a running Ray
cli         `tav platform up|status|down`
"""

from services.platform.config import PlatformConfig
from services.platform.errors import PlatformError, PortInUse
from services.platform.stack import PartStatus, Stack

__all__ = ["PartStatus", "PlatformConfig", "PlatformError", "PortInUse", "Stack"]
