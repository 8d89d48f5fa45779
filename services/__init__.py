"""What runs: the gateway, tuning, sampling, and the stack that holds them.

settings     everything that can be set, from `TAV_*` variables
api/         the gateway: the HTTP interface
tuning/      the scheduler's process, the tuners', and what they say to each other
sampling/    the driver of videos and the samplers
platform/    the one-machine stack
cluster/     a cluster of many machines
cli/         commands of `tav` that need the method or the registry
evaluation/  a suite of edits made by the service, for `tav eval`
runtime      what every process has in common
compute      what the service computes on
fair_queue   whose work is served next
snapshots    numbered snapshots of a job or a video
retries      calls of storage that are made again
scratch      scratch folders that do not outlive their process for long
logs         what a log line is about
metrics      every metric, defined once
"""
