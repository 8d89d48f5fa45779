"""The calls, a module per path.

jobs         /v1/tuning-jobs
batches      /v1/batches
bases        /v1/bases
estimates    /v1/estimates
uploads      /v1/uploads
models       /v1/models
videos       /v1/videos
operations   /healthz, /readyz
mlflow       /mlflow
"""
