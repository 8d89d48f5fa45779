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
EXAMPLE = "red-ball"
"""The model of the description's examples."""


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
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A video's model is one that exists, where it is a name at all; that of the description's examples always.

    What is made belongs to one tenant, so half of what makes something names none. Streams of what is open (which
    schemathesis finds in lists) would go on for ever, so those of what is known are asked for instead.
    """
    if case.operation.path.endswith(("/events", "/logs")) and case.path_parameters:
        case.path_parameters = {
            name: KNOWN.get(name, value) if re.fullmatch("[0-9a-f]{32}", str(value)) else value
            for name, value in case.path_parameters.items()
        }
    body = case.body
    if case.method == "POST" and isinstance(case.query, dict) and _lucky(body):
        case.query = {name: value for name, value in case.query.items() if name != "tenant"}
    if "/videos" not in case.operation.path or not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return
    if body["model"] == EXAMPLE or (re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", body["model"]) and _lucky(body)):
        case.body = body | {"model": KNOWN["name"]}
