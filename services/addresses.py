"""What others say in their errors, such as Ray, names machines; what callers of the service read does not."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"""
    \b(?!s3:)[a-z][a-z0-9+.-]*://[^\s'")\]>,]+           # http://10.0.0.5:8265/x, ipv4://…
    | \b(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?::[0-9]+)?\b      # 10.0.0.5, 10.0.0.5:6379
    | \[[0-9a-f:]+:[0-9a-f:]*\](?::[0-9]+)?              # [fd00::2]:6379
    | \b(?:ip|host(?:name)?|node)[-_ ]?(?:address)?[:=]\s*[^\s,;)]+    # ip: head-1.internal
    """,
    re.IGNORECASE | re.VERBOSE,
)


def without_addresses(text: str) -> str:
    """The text with `…` for the addresses of machines in it."""
    return _ADDRESS.sub("…", text)
