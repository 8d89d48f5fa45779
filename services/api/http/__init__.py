"""The protocol of all calls: bodies, errors, headers, and the description.

middleware    request ids, HEAD, CORS, cross-origin requests
bodies        reads JSON and multipart bodies, with limits
errors        every error as a problem document (RFC 9457)
idempotency   the Idempotency-Key header
content       a video's bytes: variants, ranges, entity tags
openapi       the OpenAPI description, beyond what FastAPI derives
examples      one example of each body for the description
"""
