"""The one-machine stack: S3, MLflow, Ray and the services under one data directory.

settings    its ports and places
stack       bring it up, report its status, take it down
data_dir    its files: ports, keys, environment, pid files, logs
daemons     the command of each daemon, and when it is ready
supervisor  start a daemon, wait for it, stop it
processes   processes that outlive the command that started them: spawn, find again, stop
ports       choose a free port, or report who uses it
deploy      deploy the services onto a running Ray
errors      what can go wrong

The commands are in `services.cli.platform`.
"""

from services.platform.errors import PlatformError, PortInUse
from services.platform.settings import PlatformSettings
from services.platform.stack import PartStatus, Stack

__all__ = ["PartStatus", "PlatformError", "PlatformSettings", "PortInUse", "Stack"]
