"""A head and a machine with a GPU, in the rendered files' own words: the whole path, a cable pulled, and a head without power.

MLflow is on a real PostgreSQL, Ray's state on a real Redis. The GPU is a number, as the cluster file says it; the tuner
computes on the CPU.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_environment_variables
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG
from ray.autoscaler._private.util import prepare_config, with_head_node_ip

from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from services.api.keys import KeyFile, make_key
from services.cluster.render import render
from tav_client import Job, TavClient
from tav_client.schemas import JobStatus
from tests.deploy import servers
from tests.deploy.machines import Machine, Network, require_namespaces
from tests.deploy.operator_file import write_settings
from tests.eventually import eventually
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

CLIP = Path(__file__).parents[2] / "examples" / "clips" / "red-ball-grass.mp4"
LONG = {"steps": 120, "num_frames": 2, "size": (32, 32)}
COMPILED = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
"""DeepSpeed's CPU communication, once for all machines; on those with a GPU there is nothing to compile."""
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Cluster:
    """What `ray up` and its autoscaler make of the rendered file, without a cloud: each command as they give it."""

    def __init__(self, folder: Path, network: Network, bucket: RegistrySettings, settings: dict[str, str]) -> None:
        self.objects = ObjectStore(bucket)
        self.objects.ensure_bucket()
        self.key, record = make_key("acme")
        settings["TAV_API_KEYS_FILE"] = place = f"s3://{bucket.s3_bucket}/operator/api-keys.json"
        KeyFile(place, bucket).write({record.id: record})
        cluster = render("gcp", write_settings("gcp", folder, **settings), folder / "out", wheels=False)
        self.config: dict[str, Any] = prepare_config(yaml.safe_load(cluster.read_text()))
        self.head, self.gpu = (self._machine(network, name) for name in ("head", "gpu"))
        # On a cloud this file names it, and lets the head make machines.
        (self.head.home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(BASE_READONLY_CONFIG))

    def _machine(self, network: Network, name: str) -> Machine:
        machine = network.machine(name)
        for target, source in self.config["file_mounts"].items():
            shutil.copytree(source, machine.home / target.removeprefix("~/"))
        return machine

    def start(self, machine: Machine) -> None:
        """Its start commands."""
        role, kind = ("head", "head") if machine is self.head else ("worker", "l4-spot")
        resources = self.config["available_node_types"][kind]["resources"]
        for command in with_head_node_ip(self.config[f"{role}_start_ray_commands"], self.head.address):
            machine.run(_with_environment_variables(command, {"RAY_OVERRIDE_RESOURCES": resources}))

    def wait_for_machines(self, count: int) -> None:
        """Until Ray knows of so many that live."""
        looks = f"""import ray, time
ray.init(address="auto", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) != {count}:
    time.sleep(0.2)
"""
        (self.head.home / "looks.py").write_text(looks)
        self.head.run(f". ~/tav/env.sh && {sys.executable} looks.py", seconds=90)

    def client(self) -> TavClient:
        """Over the network, with a key."""
        return TavClient(f"http://{self.head.address}:8000", api_key=self.key, timeout=120)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    servers.require_servers()
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        bucket = stack.enter_context(servers.bucket(network.host))
        assert bucket.s3_endpoint_url and bucket.s3_access_key_id and bucket.s3_secret_access_key
        cluster = Cluster(
            folder,
            network,
            bucket,
            {
                "TAV_CLUSTER_MLFLOW_DATABASE": stack.enter_context(servers.postgresql(network.host)),
                "TAV_CLUSTER_REDIS": stack.enter_context(servers.redis(network.host)),
                "TAV_CLUSTER_REDIS_PASSWORD": servers.REDIS_PASSWORD,
                "TAV_S3_BUCKET": bucket.s3_bucket,
                "TAV_S3_ENDPOINT_URL": bucket.s3_endpoint_url,
                "TAV_S3_ACCESS_KEY_ID": bucket.s3_access_key_id,
                "TAV_S3_SECRET_ACCESS_KEY": bucket.s3_secret_access_key.get_secret_value(),
                "TAV_BASE": str(write_random_base(folder / "base", seed=3)),
                "TAV_DEVICE": "cpu",
                "TAV_TUNER_GPUS": "1",
                "TAV_COMPUTE_THREADS": "1",
                "TAV_WORK_DIR": "/tmp/ray/tav",  # the one place below /tmp that each machine has for itself
                "TAV_CHECKPOINT_SECONDS": "0.5",
                "TAV_HOST": "0.0.0.0",
                **COMPILED,
                **QUICK_TO_NOTICE,
            },
        )
        cluster.start(cluster.head)
        cluster.start(cluster.gpu)
        yield cluster


def submit(client: TavClient, model: str, **params: object) -> Job:
    return client.jobs.create(CLIP, caption="a red ball", model=model, params={**LONG, **params}, validation_prompts=[])


def resumable(cluster: Cluster, job: Job) -> None:
    """Wait until it has left a checkpoint."""
    eventually(lambda: next(iter(cluster.objects.list(f"resume/{job.id}/state")), None), "there is no checkpoint", 240)
    assert not job.refresh().status.final


def test_a_clip_is_tuned_on_the_other_machine_and_sampled(cluster: Cluster) -> None:
    client = cluster.client()
    job = submit(client, "whole-path", steps=4)
    tuned_on = set()

    def look(_: object) -> None:
        tuned_on.update(
            machine.name for machine in (cluster.head, cluster.gpu) if "RayTrainWorker" in "".join(machine.processes())
        )

    job.wait(timeout=240, on_update=look)
    assert (job.status, tuned_on) == (JobStatus.succeeded, {"gpu"})
    video = client.videos.sync(model=job.model_ref, prompt="a blue ball", num_inference_steps=2)
    assert video[4:8] == b"ftyp"
    played = f"http://localhost:5000/get-artifact?run_id={job.id}&path=source.mp4"  # the MLflow UI, where the tunnel ends
    assert "ftyp" in cluster.head.run(f"{sys.executable} -c \"import httpx; print(httpx.get('{played}').content[4:8])\"")


def test_no_secret_is_among_the_arguments_that_every_user_of_a_machine_sees(cluster: Cluster) -> None:
    seen = "\n".join(cluster.head.processes() + cluster.gpu.processes())
    assert "mlflow" in seen  # (Redis' password is among Ray's own arguments, which nothing of ours can change)
    assert all(secret not in seen for secret in ("a%24ecret", "secret key", "0123456789abcdef"))


def test_a_machine_that_is_cut_off_and_comes_back_goes_on_with_its_job(cluster: Cluster) -> None:
    client = cluster.client()
    job = submit(client, "cut-off")
    resumable(cluster, job)
    cluster.gpu.cut_off()
    cluster.wait_for_machines(1)
    cluster.gpu.plug_in()
    cluster.start(cluster.gpu)  # as the autoscaler does with a machine that Ray has lost
    assert job.wait(timeout=240).status == JobStatus.succeeded
    assert "goes on after step" in client.jobs.logs(job.id)


def test_a_head_that_lost_its_power_has_all_jobs_and_models_again(cluster: Cluster) -> None:
    client = cluster.client()
    (done,) = client.jobs.list(model="whole-path")
    running = submit(client, "through")
    resumable(cluster, running)
    cluster.head.kill()
    cluster.head.start()
    cluster.start(cluster.head)
    cluster.wait_for_machines(2)  # the other joins again by itself
    assert {model.name for model in client.models.list()} >= {"whole-path", "cut-off"}
    assert client.jobs.get(done.id).status == JobStatus.succeeded
    assert client.jobs.get(running.id).wait(timeout=240).status == JobStatus.succeeded
    assert "goes on after step" in client.jobs.logs(running.id)
    assert client.videos.sync(model="whole-path/1", prompt="a blue ball", num_inference_steps=2)[4:8] == b"ftyp"
