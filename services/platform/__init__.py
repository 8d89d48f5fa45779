"""The one-machine stack: S3, MLflow, Ray and the services as daemons under one data directory.

settings    ports and places
processes   daemons: start, find again, stop with everything they started
daemons     what each daemon runs, and when it is ready
stack       up, status, down
deploy      one-shot: the services onto a running Ray
cli         `tav platform up|status|down`
"""

from services.platform.errors import PlatformError, PortInUse
from services.platform.settings import PlatformSettings
from services.platform.stack import PartStatus, Stack

__all__ = ["PartStatus", "PlatformError", "PlatformSettings", "PortInUse", "Stack"]
