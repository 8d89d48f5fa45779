"""What is kept: jobs and videos as MLflow runs, model versions, objects in S3.

settings    where MLflow and S3 are
objects     files in and out of S3, every upload verified
tracking    MLflow's runs with our errors, paging and long tags
jobs        a tuning job is a run; the one table of statuses
videos      a video is a run nested under its job's
versions    a model version is visible only when all its objects are there
pyfunc      what `mlflow.pyfunc.load_model` loads
"""
