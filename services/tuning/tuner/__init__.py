"""A tuner's processes: the ranks of a Ray Train run, which tune one job after the other on a network that they keep.

run               the Ray Train run, and each rank's loop over leases
attempt           one attempt at a job: prepare, tune, invert, validate, register
control           around that work: reports, stops, checkpoints, waiting for storage
memory            tuning in a memory setting that fits
results           inverted latents, validation samples, the version's files
warm_tuner        the network and engine that a rank keeps from job to job
deepspeed_engine  DeepSpeed as the method's engine
ranks             agreement among the ranks, also when one fails
reporter          progress and outcome to the scheduler, metrics and log to the run
checkpoints       what a job's next attempt resumes from
job_log           the log of one job
failures          how an error becomes an outcome
prebuild          compiles DeepSpeed's CPU communication
"""
