"""The asynchronous client, and the source of the synchronous one: `tools/sync_client.py` writes `_sync` from it."""
