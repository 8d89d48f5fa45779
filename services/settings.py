"""The settings of the services, read once from `TAV_*` variables and passed on as one object."""

import json
import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field, SecretStr, StringConstraints, field_validator

from registry.settings import RegistrySettings
from registry.tenants import TenantName
from tav.memory import Precision
from tav.probe import ClipLimits
from tav_client.schemas import ModelRef

TierSize = Annotated[str, StringConstraints(pattern=r"^[0-9]+( ?[KMGT]i?B)?$"), Field(coerce_numbers_to_str=True)]
"""A number of deltas, or bytes."""

ClipPrefix = Annotated[str, StringConstraints(pattern=r"^s3://[A-Za-z0-9.-]{3,63}/(?:[^/]+/)*$")]
"""A bucket, or a folder in a bucket; it ends with a slash."""


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://[a-z0-9.:\[\]-]+", text):
        raise ValueError(f"{text!r} is no origin: write it as browsers send it, e.g. https://app.example.org, without a path")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}: write an address or a network, e.g. 10.0.0.0/8") from error


Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]


class Settings(RegistrySettings):
    """Settings of tuning, sampling and the gateway."""

    base: str = Field(
        "offline",
        description="The base: a hub id (`owner/name[@revision]`), a diffusers folder, or the shipped `offline`.",
    )
    bases: list[str] = Field(default_factory=list, description="Further bases to tune on and to sample from.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where tuners and samplers compute.")
    precision: Precision | None = Field(None, description="Precision of the base; none: bf16 on CUDA, fp32 on CPU.")
    compile: bool = Field(
        False,
        description="Compile the network's blocks (torch.compile): the first steps with each shape of clip take a minute or "
        "more, later ones on a GPU should be faster. Not under ZeRO stage 3.",
    )
    compute_threads: int | None = Field(None, ge=1, description="Threads of one tuner or sampler on the CPU; none: all cores.")
    work_dir: Path = Field(Path("/tmp/tav"), description="Scratch space of workers; nothing in it needs a backup.")

    host: str = Field("127.0.0.1", description="Address the gateway binds to. One beyond loopback needs `api_keys_file`.")
    port: int = Field(8000, description="Port of the gateway.")
    serve_port: int = Field(8001, description="Port of Serve's own proxy behind the gateway, on the head's loopback.")
    api_keys_file: str | None = Field(
        None,
        description="Digests of the API keys, written by `tav keys create`: a path or s3://bucket/key. None: no key is needed.",
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Host names that requests may use where no key is needed, besides loopback's; for a proxy in front.",
    )
    cors_origins: list[Origin] = Field(
        default_factory=list,
        description="Origins, as https://app.example.org, whose pages may use the interface; other pages' calls get 403.",
    )
    request_seconds: float = Field(
        30, gt=0, description="Time for a request's headers, and then for its body, before it gets 408."
    )
    connections_per_address: int = Field(200, ge=1, description="Connections from one address (IPv6: from one /64) at a time.")
    trusted_proxies: list[Network] = Field(
        default_factory=list,
        description="Networks of proxies in front of the gateway; the address they send in X-Forwarded-For is counted instead.",
    )
    requests_per_minute: int | None = Field(6000, ge=1, description="Requests of one tenant, before it gets 429.")
    tls_certfile: Path | None = Field(
        None, description="Certificate chain (PEM) of the gateway; with it, the gateway serves HTTPS only."
    )
    tls_keyfile: Path | None = Field(None, description="Private key of the certificate (PEM).")
    clip_limits: ClipLimits = Field(default_factory=ClipLimits, description="Limits of what is accepted as a clip.")
    allowed_clip_buckets: list[str] = Field(
        default_factory=list,
        description="Buckets that every tenant's `clip_uri` may name; in `s3_bucket`, only its uploads and clips.",
    )
    tenant_clip_prefixes: dict[TenantName, list[ClipPrefix]] = Field(
        default_factory=dict,
        description="By tenant, what else its `clip_uri` may name: s3://bucket/ or s3://bucket/prefix/.",
    )

    captioner: str | None = Field(
        None, description="Model that captions clips without a caption: a hub id or folder. None: such clips are refused."
    )

    max_tuners: int = Field(1, ge=1, description="Tuners at a time.")
    max_running_per_tenant: int | None = Field(None, ge=1, description="Running jobs of one tenant.")
    max_queued_per_tenant: int | None = Field(None, ge=1, description="Waiting jobs of one tenant, before new ones get 429.")
    max_priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="Highest priority that tenants may give their jobs; operators may give more.",
    )
    max_gpus_per_job: int = Field(8, ge=1, description="GPUs a job may ask for.")
    gpu_types: list[str] = Field(default_factory=list, description="GPU types a job may ask for: Ray's accelerator types.")
    queue_deadline_seconds: float | None = Field(
        86_400, gt=0, description="A job that waits longer for a tuner fails, unless it sets its own limit."
    )
    run_deadline_seconds: float | None = Field(
        None, gt=0, description="A job that runs longer, counted from its first start, fails, unless it sets its own limit."
    )
    cancel_grace_seconds: float = Field(60, gt=0, description="A tuner or sampler that does not stop in this time is killed.")
    tuner_workers: int = Field(1, ge=1, description="Ranks, one GPU each, that tune one clip together.")
    tuner_cpus: float = Field(1, ge=0, description="CPUs that Ray reserves for each rank.")
    tuner_gpus: float | None = Field(
        None, ge=0, description="GPUs that Ray reserves for each rank; none: 1 where it uses CUDA."
    )
    tuner_idle_seconds: float = Field(300, ge=0, description="A tuner without work ends after this time.")
    tuner_patience_seconds: float = Field(
        60, ge=0, description="How long a tuner serves its class of jobs before an equally urgent class may replace it."
    )
    zero_stage: Literal[1, 2, 3] = Field(
        1,
        description="DeepSpeed ZeRO stage of jobs that do not choose one: over the ranks, 1 shards optimizer states, "
        "2 gradients too, 3 all parameters too.",
    )
    eval_clip_model: str | None = Field(
        None,
        description="CLIP model, a hub id or a folder, that scores validation samples and recorded videos; "
        "none: optical flow alone scores them.",
    )
    max_attempts: int = Field(3, ge=1, description="Attempts at a job or video, before a crash fails it.")
    storage_patience_seconds: float = Field(
        120, ge=0, description="How long a tuner waits for MLflow or S3 to come back, before it ends the attempt."
    )
    checkpoint_seconds: float = Field(20, gt=0, description="Time between two resume checkpoints of a job.")

    keep_jobs_days: float | None = Field(
        None, gt=0, description="Ended jobs are deleted after this time, with their versions unless an alias points at them."
    )
    keep_videos_days: float | None = Field(None, gt=0, description="Ended videos are deleted after this time.")

    sampler_cpus: float = Field(1, ge=0, description="CPUs that Ray reserves for each sampler.")
    sampler_gpus: float = Field(1, gt=0, description="GPUs of each sampler, where it uses one; 0.5 lets two share one.")
    sampler_min_replicas: int = Field(0, ge=0, description="Samplers of each base that always run.")
    sampler_max_replicas: int = Field(1, ge=1, description="Samplers of each base at a time.")
    sampler_idle_seconds: float = Field(600, ge=0, description="A sampler beyond the minimum ends after this time.")
    sampler_grace_seconds: float = Field(900, ge=0, description="How long a sampler that is shut down may finish its video.")
    sampler_memory: ByteSize | None = Field(
        None,
        description="Memory of one sampler, as in 16GiB: a video that takes more is refused. None: its share of its GPU, or "
        "on CPUs of its node's memory.",
    )
    max_video_seconds: float = Field(
        86_400, gt=0, description="A video that is estimated to take a sampler longer than this is refused."
    )
    sampler_deltas: TierSize = Field("16", description="Deltas a sampler keeps in host memory: a number, or bytes as in 8GiB.")
    sampler_device_deltas: TierSize = Field("4", description="Deltas a sampler keeps on its GPU as well: a number, or bytes.")
    sampler_preload: list[ModelRef] = Field(
        default_factory=list, description="Versions that a sampler loads when it starts; a tenant's are `TENANT~NAME…`."
    )
    sampler_pinned: list[ModelRef] = Field(
        default_factory=list,
        description="Versions that a sampler loads when it starts, and never drops.",
    )
    max_queued_videos: int = Field(64, ge=1, description="Open videos of all tenants, before new ones get 503.")
    max_queued_videos_per_tenant: int | None = Field(
        32, ge=1, description="Waiting videos of one tenant, before new ones get 429; where keys tell tenants apart."
    )
    max_running_videos_per_tenant: int | None = Field(
        None, ge=1, description="Videos of one tenant at samplers at a time; others of it wait."
    )
    video_queue_seconds: float = Field(3600, gt=0, description="A video that no sampler has begun in this time fails.")

    @property
    def served_bases(self) -> tuple[str, ...]:
        """All bases, the default one first."""
        return tuple(dict.fromkeys([self.base, *self.bases]))

    @property
    def threads(self) -> int:
        """Threads of one tuner or sampler on a CPU."""
        return self.compute_threads or os.cpu_count() or 1

    def precision_on(self, cuda: bool) -> Precision:
        """Return `precision`, or if it is not set, bf16 on CUDA and fp32 on a CPU."""
        return self.precision or ("bf16" if cuda else "fp32")

    def environment(self) -> dict[str, str]:
        """Return the `TAV_*` variables from which another process reads the same settings."""
        values = {}
        for name in type(self).model_fields:
            value = _plain(getattr(self, name))
            if value is not None:
                values[f"TAV_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
        return values

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdigit() else value


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, ClipLimits):
        return value.model_dump()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
