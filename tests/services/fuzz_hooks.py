"""What schemathesis loads beside the gateway's description: half of its cases name things that exist."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from zlib import crc32

import schemathesis

KNOWN: dict[str, str] = json.loads(os.environ["TAV_FUZZ_KNOWN"])
"""By the parameter's name."""


def _lucky(given: object) -> bool:
    return crc32(repr(given).encode()) % 2 == 0


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Deletions are led past what is known (schemathesis finds it in lists), or soon nothing would be there."""
    if path_parameters and context.operation.method.lower() == "delete":
        return {name: "gone" if value in KNOWN.values() else value for name, value in path_parameters.items()}
    if not path_parameters or not _lucky(path_parameters):
        return path_parameters
    return path_parameters | {name: KNOWN[name] for name in path_parameters if name in KNOWN}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A video's model is one that exists, where it is a name at all."""
    if "/videos" not in context.operation.path or not isinstance(body, dict) or not _lucky(body):
        return body
    named = isinstance(body.get("model"), str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", body["model"])
    return body | {"model": KNOWN["name"]} if named else body
