"""A driver on a Ray of its own that has no GPU node: jobs make the autoscaler add nodes, the end of work takes them away.

Run as a process (a process joins one Ray only), with the settings in `TAV_*`; prints what it saw as JSON lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from ray.cluster_utils import AutoscalingCluster

from registry.jobs import JobStore
from registry.objects import ObjectStore
from services.platform.ports import any_free
from services.runtime import NAMESPACE
from services.settings import Settings
from services.tuning.scheduler.actor import start_scheduler
from tav import Video
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate

LOOPBACK = "127.0.0.1"
GPU_NODE = {"CPU": 1, "GPU": 1, "accelerator_type:T4": 1, "object_store_memory": 80 * 1024**2}


class OwnAutoscalingCluster(AutoscalingCluster):
    """Ray's own, on ports of its own. It begins and ends with `ray stop --force`, which ends every Ray of the machine; this
    one ends what it started. (Its template of a configuration is not in the package that pip installs, either.)"""

    def _generate_config(
        self, head_resources: dict[str, Any], worker_node_types: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        self.port = any_free(LOOPBACK)
        provider = {"type": "fake_multinode", "gcs_address": f"{LOOPBACK}:{self.port}"}
        provider |= {"launch_multiple": True, "use_node_id_as_ip": True}
        provider |= {"disable_launch_config_check": True, "disable_node_updaters": True, "foreground_node_launch": True}
        head = {"resources": dict(head_resources), "node_config": {}, "max_workers": 0}
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        more.pop("autoscaler_v2")
        return {
            "cluster_name": "fake",
            "max_workers": 8,
            "upscaling_speed": 1.0,
            "provider": provider,
            "auth": {"ssh_user": "nobody"},
            "head_node_type": "ray.head.default",
            "available_node_types": {"ray.head.default": head, **worker_node_types},
            **{f"{name}_commands": [] for name in commands},
            **{"file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False},
            **{"rsync_exclude": [], "rsync_filter": []},
            **more,
        }

    def start(self, folder: Path) -> None:
        """Start the head and its autoscaler."""
        config = folder / "cluster.json"
        config.write_text(json.dumps(self._config))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--autoscaling-config={config}", "--num-cpus=0", f"--object-store-memory={128 * 1024**2}"]
        command += [f"--node-ip-address={LOOPBACK}", f"--port={self.port}", f"--temp-dir={folder / 'ray'}"]
        command += ["--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={any_free(LOOPBACK)}"]
        command += [f"--dashboard-agent-listen-port={any_free(LOOPBACK)}", f"--ray-client-server-port={any_free(LOOPBACK)}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        environment = os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        with (folder / "head.log").open("wb") as log:
            self.head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def shutdown(self) -> None:
        """End the head, the nodes that its autoscaler made, and what runs on them: all of one session."""
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.head.pid:
                    process.kill()
            except (psutil.Error, ProcessLookupError):
                continue
        self.head.wait()


def main(folder: Path) -> None:
    """Two jobs on GPU nodes that do not exist yet; one on nodes that never will; then nothing."""
    settings = Settings()
    cluster = OwnAutoscalingCluster(
        {"CPU": 0},
        {"gpu": {"resources": GPU_NODE, "node_config": {}, "min_workers": 0, "max_workers": 2}},
        idle_timeout_minutes=0.1,
    )
    cluster.start(folder)
    try:
        _join(cluster.port)
        say(event="begin", gpu_nodes=gpu_nodes())
        scheduler = start_scheduler(settings)
        jobs = [submit(settings, scheduler, gpu_type="T4") for _ in range(2)]
        never = submit(settings, scheduler, gpu_type="A100", queue_deadline_seconds=20)
        peak, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.5):
                peak[0] = max(peak[0], gpu_nodes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for name, job in (("never", never), ("first", jobs[0]), ("second", jobs[1])):
            ended = wait(scheduler, job)
            say(
                event=name,
                status=ended.status,
                code=ended.error and ended.error.code,
                message=ended.error and ended.error.message,
            )
        stop.set()
        watcher.join()
        say(event="peak", gpu_nodes=peak[0])
        deadline = time.monotonic() + 120
        while (gpu_nodes() or groups()) and time.monotonic() < deadline:
            time.sleep(0.5)
        say(event="end", gpu_nodes=gpu_nodes(), placement_groups=groups())
    finally:
        ray.shutdown()
        cluster.shutdown()


def _join(port: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            ray.init(address=f"{LOOPBACK}:{port}", namespace=NAMESPACE, log_to_driver=False)
            return
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def gpu_nodes() -> int:
    """Living nodes with a GPU."""
    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def groups() -> list[dict[str, Any]]:
    """Placement groups that hold resources or ask for them."""
    return [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]


def submit(settings: Settings, scheduler: Any, **fields: Any) -> TuningJob:
    """A job on a few grey frames."""
    path = settings.work_dir / "clip.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Video(np.full((4, 16, 16, 3), 90, np.uint8), 8).encode())
    stored = ObjectStore(settings).put_clip(path)
    clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=4, fps=8)
    params = {"num_frames": 4, "size": (16, 16), "steps": 40}
    request = TuningJobCreate.model_validate({"caption": "grey", "params": params, **fields})
    job = JobStore(settings).create(request, clip, settings.base, "grey")
    ray.get(scheduler.notify.remote(job))
    return job


def wait(scheduler: Any, job: TuningJob) -> TuningJob:
    """The job when it has ended."""
    after, snapshot, deadline = 0, job, time.monotonic() + 240
    while not snapshot.status.final:
        assert time.monotonic() < deadline, snapshot
        for event in ray.get(scheduler.events.remote(job.id, after, 10.0)):
            after, snapshot = event
    return snapshot


def say(**fields: Any) -> None:
    """A line for the test."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
