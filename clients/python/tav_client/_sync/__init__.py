"""The synchronous client, generated from `_async` by `tools/sync_client.py`: do not edit.

client      one connection pool, and what the service has as attributes
jobs        tuning jobs
batches     many jobs at once
uploads     large clips
models      models, versions and aliases
videos      videos of edited prompts
transport   sends calls, repeats them, follows streams
"""
