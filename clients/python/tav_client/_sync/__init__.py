"""The synchronous client: made of `_async` by `tools/sync_client.py`, which see; not to be edited."""
