"""Whether anything is lost while everything fails: many small jobs, submitted over HTTP, and a seeded schedule of faults.

    python -m benchmarks.chaos --seed 1 --jobs 30          # minutes; what CI runs: --jobs 8 --rounds 1 --kinds … --short
    python -m benchmarks.chaos --kinds disk,preemption

Undisturbed runs of the few configurations come first. Then clients submit jobs, with idempotency keys and patience, and cancel
a few, while one fault after the other happens to running work. At the end every accepted job must have ended, every success
must have one version whose tensors are bit for bit those of the undisturbed run, and nothing may be left behind. What is drawn
from the seed is the schedule: jobs, cancels, kinds of faults and pauses; when exactly a fault meets a job is the machine's
affair.
"""

KINDS = ("worker", "tuner", "scheduler", "gateway", "mlflow", "s3", "head", "disk", "preemption")
