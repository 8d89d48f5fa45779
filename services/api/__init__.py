"""The gateway: the HTTP interface of docs/http.md.

app          the FastAPI application and its Serve deployment
parts        what the routes work with
errors       every error as problem+json
requests     request ids; what nobody caught
origins      pages of other sites
auth         who may come in
rates        how often
mlflow       MLflow behind the same door
bodies       JSON and uploads, with limits
clips        from an upload or address to a clip that is known to decode
jobs         /v1/tuning-jobs
events       a job's snapshots as server-sent events
models       /v1/models
videos       /v1/videos
driver       takes videos from queued to their end
scheduler    how the scheduler is asked
operations   /healthz, /readyz
"""
