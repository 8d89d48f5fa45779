"""Tuning jobs, in two kinds of processes: one scheduler, which leases jobs, and tuners, which work on them.

The gateway notifies the scheduler of a new job, cancels jobs and follows them. A tuner asks the scheduler for a `Lease`, sends
a `Beat` every half second and gets a `Verdict` back, and reports the attempt's `Outcome`. The scheduler alone changes a job's
status; the tuner writes metrics, log, checkpoints and the version.

messages    what gateway, scheduler and tuners send each other
client      the gateway's client of the scheduler
estimates   which memory settings to try, and what a job takes in each
scheduler/  the scheduler's process
tuner/      the tuners' processes
"""
