"""The gateway: the HTTP interface of docs/http.md.

app              the FastAPI application and its Serve deployment
haproxy          HAProxy in front of Ray Serve
backends         what the gateway works with: stores, scheduler, driver
deps             what the routes depend on
routes/          the calls, a module per path
http/            the protocol, whatever the call
exposure         whether the gateway may listen where its settings say
keys             API keys, and the file of their digests
auth             authentication of a request
rate_limit       the limit on each tenant's requests
callers          the caller of a request
catalog          the registry's models as a caller sees them
job_maker        creates tuning jobs
job_requests     reads and checks a job's request
clip_sources     the objects that clip_uri may name
clips            decodes and stores an uploaded clip
estimates        a job's memory and time, before it is created
job_logs         a job's log as a stream
video_requests   reads and checks a video's request
unread_texts     the ends of texts that a base does not read
events           server-sent events of jobs and videos
mlflow_proxy     a reverse proxy to the MLflow server
"""
