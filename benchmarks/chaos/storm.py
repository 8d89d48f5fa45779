"""The jobs, the clients that want them, and the storm that they have to get through."""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from mlflow import MlflowClient

from benchmarks.chaos.faults import Faults
from benchmarks.chaos.site import Site
from registry.errors import NotFound
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionStore
from services.runtime import NAMESPACE, SCHEDULER
from tav import Delta, Latents
from tav_client import APIStatusError, Conflict, TavClient, TavClientError
from tav_client.schemas import JobStatus, TuningJob

SETTINGS = {
    "TAV_COMPUTE_THREADS": "1",
    "TAV_CHECKPOINT_SECONDS": "0.5",
    "TAV_TUNER_IDLE_SECONDS": "12",
    "TAV_MAX_ATTEMPTS": "3",
}
MODEL = "chaos"
_RUNNING_SECONDS = 90.0
"""A fault waits so long for work to happen to."""
_SETTLE_SECONDS = 900.0


@dataclass(frozen=True)
class Kind:
    """A configuration that jobs share, so that one undisturbed run says what all must end in."""

    steps: int
    seed: int
    prompts: int = 0

    def fields(self) -> dict[str, Any]:
        """Of the request."""
        prompts = ["a blue square", "a green square"][: self.prompts]
        params = {"num_frames": 4, "size": (16, 16), "learning_rate": 1e-3, "steps": self.steps, "seed": self.seed}
        return {"caption": "a red square", "model": MODEL, "params": params, "validation_prompts": prompts}


CONFIGURATIONS = (Kind(20, 0, 1), Kind(60, 1), Kind(150, 2))


@dataclass
class Asked:
    """A job that a client wants."""

    kind: Kind
    cancel_after: float | None = None
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    job: TuningJob | None = None
    """What the service answered: it is accepted."""
    cancel_accepted: bool = False


@dataclass(frozen=True)
class Step:
    """A fault, the pause before it, and how many jobs are submitted before that."""

    fault: str
    pause: float
    jobs: int


def schedule(rng: random.Random, kinds: Sequence[str], rounds: float, jobs: int) -> tuple[list[Step], list[Asked]]:
    """Every kind of fault once a round, in random order; jobs, one or more, before each fault."""
    faults = [kind for _ in range(math.ceil(rounds)) for kind in rng.sample(list(kinds), len(kinds))]
    faults = faults[: round(rounds * len(kinds))]
    shares = Counter(rng.randrange(len(faults)) for _ in range(jobs - len(faults)))
    steps = [Step(fault, rng.uniform(0.0, 5.0), 1 + shares[place]) for place, fault in enumerate(faults)]
    wanted = [Asked(rng.choice(CONFIGURATIONS)) for _ in range(sum(step.jobs for step in steps))]
    for asked in rng.sample(wanted, len(wanted) // 6):
        asked.cancel_after = rng.uniform(0.0, 20.0)
    return steps, wanted


class Clients:
    """Patient users: they repeat a call until the service answers it."""

    def __init__(self, url: Callable[[], str], clip: Path) -> None:
        self._url, self._clip = url, clip
        self._threads = ThreadPoolExecutor(16)
        self._pending: list[Any] = []
        self.repeated = 0

    def submit(self, asked: Asked) -> None:
        """Begin to submit, and to cancel later where that is wanted."""
        self._pending.append(self._threads.submit(self._one, asked))

    def finished(self) -> None:
        """Wait until all have got their answers."""
        for pending in self._pending:
            pending.result()

    def _one(self, asked: Asked) -> None:
        job = self._patiently(
            lambda client: client.jobs.create(self._clip, **asked.kind.fields(), idempotency_key=asked.key).snapshot
        )
        asked.job = job
        if asked.cancel_after is not None:
            time.sleep(asked.cancel_after)
            asked.cancel_accepted = self._patiently(lambda client: _cancelled(client, job.id))

    def _patiently(self, call: Callable[[TavClient], Any]) -> Any:
        while True:
            with TavClient(self._url(), timeout=30, max_retries=3) as client:
                try:
                    return call(client)
                except TavClientError as error:
                    if isinstance(error, APIStatusError) and error.status < 500:
                        raise
                    self.repeated += 1
            time.sleep(1.0)


def _cancelled(client: TavClient, job_id: str) -> bool:
    try:
        client.jobs.cancel(job_id)
    except Conflict:
        return False  # it had ended
    return True


class Chaos:
    """One run."""

    def __init__(self, site: Site, faults: Faults, clients: Clients) -> None:
        self.site, self.faults, self.clients = site, faults, clients
        self.began = time.monotonic()

    def reference(self, clip: Path, kinds: set[Kind]) -> dict[Kind, str]:
        """What every configuration ends in when nothing happens."""
        ended = {}
        with TavClient(self.site.stack.client_url, timeout=60) as client:
            jobs = {kind: client.jobs.create(clip, **kind.fields()) for kind in CONFIGURATIONS if kind in kinds}
            for kind, job in jobs.items():
                job.wait(timeout=300)
                self.say(f"undisturbed: {kind} in {(job.snapshot.finished_at or 0) - (job.snapshot.started_at or 0):.1f} s")
                ended[kind] = self.digest(job.snapshot)
        return ended

    def storm(self, steps: Sequence[Step], wanted: Sequence[Asked]) -> list[dict[str, Any]]:
        """Submit, wait for running work, pause, let it happen; again and again."""
        happened, left = [], list(wanted)
        for step in steps:
            for _ in range(step.jobs):
                self.clients.submit(left.pop())
            met = self._some_job_runs()
            time.sleep(step.pause)
            at = time.monotonic() - self.began
            said = self.faults.inject(step.fault)
            took = time.monotonic() - self.began - at
            happened.append({"fault": step.fault, "at": round(at, 1), "took": round(took, 1), "met": met, "what": said})
            self.say(f"{step.fault}: {said}")
        self.faults.mended()
        self.clients.finished()
        return happened

    def _some_job_runs(self) -> bool:
        deadline = time.monotonic() + _RUNNING_SECONDS
        while time.monotonic() < deadline:
            try:
                with TavClient(self.site.stack.client_url, timeout=10, max_retries=0) as client:
                    if any(job.snapshot.step for job in client.jobs.list(status=JobStatus.running)):
                        return True
            except TavClientError:
                pass  # it is away: ask again
            time.sleep(0.5)
        return False

    def aftermath(self, clip: Path, reference: Mapping[Kind, str]) -> bool:
        """Whether the service still works: a job that nothing happens to ends at its first attempt, in the same bits."""
        kind = min(reference, key=lambda kind: kind.steps)
        with TavClient(self.site.stack.client_url, timeout=60) as client:
            job = client.jobs.create(clip, **kind.fields()).wait(timeout=300).snapshot
        return job.attempt == 1 and self.digest(job) == reference[kind]

    def settle(self, wanted: Sequence[Asked]) -> list[TuningJob]:
        """Every accepted job, when all have ended or time has."""
        accepted = dict.fromkeys(asked.job.id for asked in wanted if asked.job is not None)
        deadline, jobs = time.monotonic() + _SETTLE_SECONDS, JobStore(self.site.stack.settings())
        while True:
            found = []
            for job_id in accepted:
                with suppress(NotFound):  # then it is lost
                    found.append(jobs.get(job_id))
            if all(job.status.final for job in found) or time.monotonic() > deadline:
                return found
            time.sleep(1.0)

    def digest(self, job: TuningJob) -> str:
        """Of the version's tensors."""
        versions, made = VersionStore(self.site.stack.settings()), hashlib.sha256()
        with tempfile.TemporaryDirectory() as folder:
            versions.fetch(versions.get(job.model, job.version or 0), Path(folder))
            delta, latents = (
                Delta.load(Path(folder) / "delta.safetensors"),
                Latents.load(Path(folder) / "latents.safetensors"),
            )
        for name, tensor in [*sorted(delta.tensors.items()), ("latents", latents.tensor)]:
            made.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return made.hexdigest()

    def left_behind(self) -> dict[str, list[str]]:
        """What nobody needs any more, after the tuners' idle time."""
        ray.init(address=self.site.stack.ray_address, namespace=NAMESPACE, log_to_driver=False)
        try:
            deadline = time.monotonic() + float(SETTINGS["TAV_TUNER_IDLE_SECONDS"]) + 60
            while any((left := self._left()).values()) and time.monotonic() < deadline:
                time.sleep(1.0)
        finally:
            ray.shutdown()
        return left

    def _left(self) -> dict[str, list[str]]:
        groups = ray.util.placement_group_table().values()
        settings = self.site.stack.settings()
        objects, runs = ObjectStore(settings), MlflowClient(settings.mlflow_tracking_uri)
        registered = {version.run_id for version in runs.search_model_versions(f"name = '{MODEL}'", max_results=1000)}
        tuners = ray.get(ray.get_actor(SCHEDULER, NAMESPACE).status.remote())["tuners"]
        scratch = [path for kind in ("job", "clip", "version") for path in self.site.work.glob(f"{kind}-*")]
        return {
            "placement groups": [group["placement_group_id"] for group in groups if group["state"] != "REMOVED"],
            "tuners": list(tuners),
            "processes": [str(p.pid) for t in ("RayTrainWorker", "TunerSupervisor") for p in self.site.actors(t)],
            "checkpoints": [item.uri for item in objects.list("resume/")],
            "files without a version": [
                item.uri for item in objects.list(f"models/{MODEL}/") if item.uri.split("/")[5] not in registered
            ],
            "scratch": [path.name for path in scratch],
        }

    def say(self, text: str) -> None:
        """Progress."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)
