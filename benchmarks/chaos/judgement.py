"""What the promise says, counted; and the page for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient

from benchmarks.chaos.storm import MODEL, SETTINGS, Asked, Chaos, Kind
from registry.jobs import JobStore
from tav_client.schemas import JobStatus, TuningJob

TOLD = {
    "went on from a checkpoint": "goes on after step",
    "handed back before its node went": "the job goes on elsewhere",
    "found the disk full": "disk is full",
    "waited for storage": "storage is away",
    "kept tuning without a checkpoint": "no checkpoint at step",
    "stopped, as asked": "stopped, as asked",
}
"""What attempts say about what they met."""


def judged(chaos: Chaos, wanted: Sequence[Asked], ended: Sequence[TuningJob], reference: dict[Kind, str]) -> dict[str, Any]:
    """What the promise says, counted."""
    settings = chaos.site.stack.settings()
    kinds = {asked.job.id: asked.kind for asked in wanted if asked.job is not None}
    versions = Counter(
        version.run_id
        for version in MlflowClient(settings.mlflow_tracking_uri).search_model_versions(f"name = '{MODEL}'", max_results=1000)
    )
    jobs = JobStore(settings)
    logs = [jobs.logs(job.id).decode() for job in ended]
    made = [job.id for job in jobs.list(limit=10_000).data]
    wrong = [job.id for job in ended if job.status is JobStatus.succeeded and chaos.digest(job) != reference[kinds[job.id]]]
    limit = int(SETTINGS["TAV_MAX_ATTEMPTS"])
    return {
        "jobs": {
            "asked": len(wanted),
            "accepted": len(kinds),
            **{status.value: sum(job.status is status for job in ended) for status in JobStatus},
            "lost": sum(not job.status.final for job in ended) + len(kinds) - len(ended),
        },
        "jobs_made_twice": len(made) - len(reference) - len(set(kinds)),
        "duplicates_registered": sum(count - 1 for count in versions.values()),
        "versions_of_jobs_that_did_not_succeed": sum(
            versions[job.id] for job in ended if job.status is not JobStatus.succeeded
        ),
        "successes_without_a_version": sum(not versions[job.id] for job in ended if job.status is JobStatus.succeeded),
        "deltas_compared": sum(job.status is JobStatus.succeeded for job in ended),
        "deltas_that_differ": wrong,
        "cancels": {
            "accepted": sum(asked.cancel_accepted for asked in wanted),
            "not_cancelled": [
                job.id
                for asked in wanted
                for job in ended
                if asked.cancel_accepted and asked.job and asked.job.id == job.id and job.status is JobStatus.failed
            ],
        },
        "failures": [
            {"job": j.id, "attempt": j.attempt, **(j.error.model_dump(mode="json") if j.error else {})}
            for j in ended
            if j.status is JobStatus.failed
        ],
        "attempts": dict(sorted(Counter(job.attempt for job in ended).items())),
        "said_in_the_jobs_logs": {what: sum(log.count(words) for log in logs) for what, words in TOLD.items()},
        "excused_attempts": sum(job.excused_attempts for job in ended),
        "miscounted_attempts": [
            job.id
            for job in ended
            if job.attempt - job.excused_attempts > limit or (job.status is JobStatus.succeeded and not job.attempt)
        ],
    }


def verdict(figures: dict[str, Any]) -> list[str]:
    """What does not hold."""
    zero = {
        "jobs lost": figures["jobs"]["lost"],
        "jobs not accepted": figures["jobs"]["asked"] - figures["jobs"]["accepted"],
        **{name: figures[name] for name in ("jobs_made_twice", "duplicates_registered", "successes_without_a_version")},
        "versions_of_jobs_that_did_not_succeed": figures["versions_of_jobs_that_did_not_succeed"],
        "deltas_that_differ": len(figures["deltas_that_differ"]),
        "miscounted_attempts": len(figures["miscounted_attempts"]),
        "failures without a reason": sum("code" not in failure for failure in figures["failures"]),
        "internal failures": sum(failure.get("code") == "internal" for failure in figures["failures"]),
        "cancels that failed": len(figures["cancels"]["not_cancelled"]),
        "not working afterwards": not figures["works_afterwards"],
        **{f"left behind: {name}": len(left) for name, left in figures["left_behind"].items()},
    }
    return [f"{name}: {count}" for name, count in zero.items() if count]


def page(figures: dict[str, Any]) -> str:
    """For people."""
    jobs = figures["jobs"]
    rows = [
        ("faults injected", sum(figures["faults_injected"].values())),
        *((f"· {kind}", count) for kind, count in figures["faults_injected"].items()),
        ("jobs accepted", jobs["accepted"]),
        *((f"· {status}", jobs[status]) for status in ("succeeded", "failed", "cancelled")),
        ("**jobs lost**", jobs["lost"]),
        ("jobs made twice for one idempotency key", figures["jobs_made_twice"]),
        ("**duplicates registered**", figures["duplicates_registered"]),
        ("deltas and latents compared with an undisturbed run's", figures["deltas_compared"]),
        ("**of these not bit-identical**", len(figures["deltas_that_differ"])),
        ("jobs by attempts", ", ".join(f"{count} x {n}" for n, count in figures["attempts"].items())),
        ("attempts excused", figures["excused_attempts"]),
        *((f"· {what}, says a job's log", count) for what, count in figures["said_in_the_jobs_logs"].items()),
        ("calls repeated by clients", figures["calls_repeated_by_clients"]),
        ("left behind", ", ".join(name for name, left in figures["left_behind"].items() if left) or "nothing"),
        ("seconds", figures["seconds"]),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    events = "\n".join(f"| {e['at']:.0f} | {e['fault']} | {e['what']} |" for e in figures["schedule"])
    failures = "\n".join(f"- {f.get('code')}: {f.get('message')}" for f in figures["failures"]) or "none"
    return f"""# Chaos, seed {figures["seed"]}

Made by `python -m benchmarks.chaos`; all figures, the machine and the versions are in `chaos.json`.

| | |
| --- | --- |
{table}

Failures: {failures}

| second | fault | what |
| --- | --- | --- |
{events}
"""
