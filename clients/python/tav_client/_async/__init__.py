"""The asynchronous client, and the source of the synchronous one: `tools/sync_client.py` writes `_sync` from it.

client      one connection pool, and what the service has as attributes
jobs        tuning jobs
batches     many jobs at once
uploads     large clips
models      models, versions and aliases
videos      videos of edited prompts
transport   sends calls, repeats them, follows streams
"""
