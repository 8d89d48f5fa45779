"""The command line `tav`.

_main     the entry point
_app      the root: options about the service, and the commands of the server package
_jobs     `tav jobs`
_submit   `tav jobs submit` and `tav jobs estimate`
_options  options of commands, derived from the fields of requests
_batches  batches: submitted from a manifest, watched in one table
_bases    `tav bases`
_models   `tav models`
_videos   `tav videos`
common    what the commands share, those of the server package too
"""

from tav_client.cli._main import main

__all__ = ["main"]
