"""A completed video that shows itself in a notebook."""

from __future__ import annotations

from html import escape
from typing import Protocol

import httpx

from tav_client import _calls, _notebook
from tav_client._errors import TavClientError
from tav_client._retry import RetryPolicy

LARGEST = 20_000_000
"""Bytes that are put into a notebook, which is a file of text that grows by a third more."""


class _Connected(Protocol):
    """A transport of either client."""

    url: httpx.URL
    api_key: str | None
    timeout: float


def preview(transport: _Connected, id: str) -> str:
    """Make a player with the content in it.

    IPython does not wait for what it shows, so the content is fetched by a synchronous connection, whichever client asks.
    """
    from tav_client._sync.transport import Transport

    connection = Transport(str(transport.url), transport.api_key, transport.timeout, RetryPolicy(max_retries=0))
    try:
        content = connection.send(_calls.video_content(id))
    except TavClientError as error:
        return f"<div>{escape(str(error))}</div>"
    finally:
        connection.close()
    if len(content) > LARGEST:
        return f"<div>It has {len(content) / 1e6:.0f} MB: write it to a file with save(path).</div>"
    return f"<div>{_notebook.player(content, content.content_type)}</div>"
