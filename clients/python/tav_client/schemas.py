"""The wire format of the tav HTTP API (`/v1`), and its only definition: the gateway imports these models.

Times are UNIX seconds. Sizes are `[width, height]` in pixels. A field left out of a request (or null) takes
the base's recommended value, then the paper's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tav_client._sentences import shown


def model_slug(text: str) -> str:
    """A model's name made from a text, `Man Skiing` → `man-skiing`; empty where no letter of it is in a name's alphabet."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].strip("-")


def _told(rule: str, suggested: Callable[[str], str] = lambda _: "") -> WrapValidator:
    """Tells what a pattern wants, and what would do instead of what was given."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            if error.errors()[0]["type"] != "string_pattern_mismatch":
                raise
            instead = suggested(str(value))
            raise ValueError(f"may not be {shown(value)}: {rule}" + (f"; {instead} would do" if instead else "")) from None

    return WrapValidator(check)


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64].strip("._-")


ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"),
    _told("a model's name has 1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends", model_slug),
]
"""Registry name: 1–64 of `a-z 0-9 . _ -`, starting and ending with a letter or digit."""

_TENANT = r"(?:[a-z0-9][a-z0-9._-]{0,63}~)?"

AnyModelName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_TENANT}[a-z0-9][a-z0-9._-]{{0,63}}$"),
    _told("a model's name has 1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends", model_slug),
]
"""A model of one's own, or as `TENANT~NAME` one that another tenant shares."""

ModelRef = Annotated[
    str,
    StringConstraints(pattern=rf"^{_TENANT}[a-z0-9][a-z0-9._-]{{0,63}}(?:@[A-Za-z0-9_-]{{1,64}}|/[1-9][0-9]{{0,8}})?$"),
    _told("write name, name@alias or name/version", lambda text: "" if re.search("[@/~]", text) else model_slug(text)),
]
"""`name` (its latest version), `name@alias` or `name/version`; of a model that another tenant shares, `TENANT~NAME…`."""

Label = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"),
    _told("1 to 64 letters, digits and . _ -, a letter or digit at both ends", _letters),
]
"""A batch's name, a GPU type, a key of `metadata`: 1–64 letters, digits, `.`, `_`, `-`, the ends letters or digits."""

VideoFormat = Literal["mp4", "gif", "webm"]

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


def _pair(value: Any) -> Any:
    """JSON has no tuples, which a validator before the type hides from pydantic."""
    return tuple(value) if isinstance(value, list) else value


def _parsed_size(value: Any) -> Any:
    """OpenAI writes a size as `WIDTHxHEIGHT`."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)):
        return int(found[1]), int(found[2])
    return _pair(value)


_Side = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
_SizeText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")]
VideoSize = Annotated[
    tuple[_Side, _Side], BeforeValidator(_parsed_size, json_schema_input_type=tuple[_Side, _Side] | _SizeText)
]
"""Width and height in pixels, multiples of 8."""

WholeSeconds = Annotated[float, PlainSerializer(int, return_type=int, when_used="json-unless-none")]
"""UNIX seconds, whole on the wire: OpenAI's clients read integers."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore")

    def _repr_html_(self) -> str:
        from tav_client._notebook import record  # only notebooks need it

        return record(self)


_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"}


def _unbounded(schema: Any) -> Any:
    """A JSON schema that asks for types alone."""
    if isinstance(schema, dict):
        return {name: _unbounded(value) for name, value in schema.items() if name not in _BOUNDS}
    return [_unbounded(value) for value in schema] if isinstance(schema, list) else schema


class _Kept(BaseModel):
    """A request as it was accepted. It is read again as it was, also where the bounds of requests have changed since."""

    @model_validator(mode="wrap")
    @classmethod
    def _as_it_was(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(data)
        except ValidationError as error:
            if not isinstance(data, dict) or any(place["type"] == "missing" for place in error.errors()):
                raise
            beyond = {str(place["loc"][0]) for place in error.errors() if place["loc"]} & cls.model_fields.keys()
        try:
            kept = validate({name: value for name, value in data.items() if name not in beyond})
        except ValidationError:  # what every request has is among them
            kept, beyond = cast(Self, cls.model_construct()), data.keys() & cls.model_fields.keys()
        for name in beyond:
            kept.__dict__[name] = _pair(data[name])
            kept.__pydantic_fields_set__.add(name)
        return kept

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Without bounds, which are of requests: what is kept may lie beyond them."""
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        described["properties"] = {name: _unbounded(value) for name, value in described["properties"].items()}
        return schema


class JobStatus(StrEnum):
    """Where a tuning job stands."""

    queued = "queued"
    """Accepted and kept; waits for a tuner. Also entered again after a crash, with one attempt more."""
    running = "running"
    """A tuner holds it; `phase` says what it does."""
    succeeded = "succeeded"
    """Its model version is registered."""
    failed = "failed"
    """Ended for the reason in `error`."""
    cancelled = "cancelled"
    """Ended by a cancel call."""

    @property
    def final(self) -> bool:
        """True when the status will not change any more."""
        return self in (JobStatus.succeeded, JobStatus.failed, JobStatus.cancelled)


class JobPhase(StrEnum):
    """What a running job is doing, in order."""

    preparing = "preparing"
    tuning = "tuning"
    inverting = "inverting"
    validating = "validating"
    registering = "registering"


class WaitsFor(StrEnum):
    """What a queued job waits for."""

    tuner_start = "tuner_start"
    """A tuner for it is starting: processes begin, the base is loaded, or a node has to come first."""
    free_tuner = "free_tuner"
    """All places for tuners are taken by other jobs."""
    own_jobs = "own_jobs"
    """As many jobs of its tenant run as may."""
    pause = "pause"
    """Its last attempt ended by something that may pass; it is tried again soon."""


class FailureCode(StrEnum):
    """Why a tuning job or a video failed."""

    invalid_clip = "invalid_clip"
    """The clip cannot be decoded or does not fit the configuration. Not retried."""
    invalid_config = "invalid_config"
    """The parameters contradict each other or the base. Not retried."""
    base_unavailable = "base_unavailable"
    """The base cannot be loaded: no such folder or hub id, or its files are incomplete."""
    base_mismatch = "base_mismatch"
    """The delta was made with another base than the one in use."""
    out_of_memory = "out_of_memory"
    """Frames × size do not fit the device, even with the leanest memory setting."""
    nan_loss = "nan_loss"
    """The loss stopped being a finite number: lower the learning rate or use a wider precision."""
    no_resources = "no_resources"
    """Nothing that could work on it was free, or could be started, before its queue deadline."""
    deadline_exceeded = "deadline_exceeded"
    """It waited, or ran, longer than its queue or run deadline allows."""
    worker_lost = "worker_lost"
    """The process or node that worked on it died in every attempt."""
    storage_unavailable = "storage_unavailable"
    """S3 or MLflow did not answer in every attempt."""
    disk_full = "disk_full"
    """The worker had no room for its scratch files, in every attempt."""
    corrupt_version = "corrupt_version"
    """An object of the model version is missing or its digest differs from the one registered."""
    cancelled = "cancelled"
    """Whoever waited for the video went away. Tuning jobs have a status for it instead."""
    internal = "internal"
    """A defect of ours; the traceback is an artifact of the run."""


class Failure(_Response):
    """A typed reason and one readable sentence."""

    code: FailureCode
    message: str


class _Memory(BaseModel):
    zero_stage: Literal[1, 2, 3] = Field(
        1, description="DeepSpeed ZeRO: over the ranks, 1 shards optimizer states, 2 gradients too, 3 all parameters too."
    )
    offload_optimizer: bool = Field(False, description="Keep master weights and AdamW's moments in host memory.")
    offload_params: bool = Field(False, description="Keep parameters in host memory; needs `zero_stage` 3.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        None, description="Of the network's arithmetic; left out, the service's own."
    )


class MemorySetting(_Request, _Memory):
    """How a tuning job is laid out in memory: an explicit setting is obeyed, and fails where it does not fit."""

    @model_validator(mode="after")
    def _offload_needs_stage_3(self) -> MemorySetting:
        if self.offload_params and self.zero_stage != 3:
            raise ValueError("offload_params needs zero_stage 3: lower stages keep every parameter on the device")
        return self


class JobMemory(_Response, _Memory):
    """A memory setting as a job was asked for or worked in."""


class _Tuning(BaseModel):
    num_frames: int | None = Field(None, ge=2, le=512, description="Frames taken from the clip.")
    size: tuple[int, int] | None = Field(None, description="`[width, height]` in pixels, multiples of 8.")
    frame_start: int = Field(0, ge=0, description="First source frame used.")
    frame_stride: int | None = Field(
        None, ge=1, description="Take every n-th source frame; left out, frames are spread evenly over the clip."
    )
    steps: int | None = Field(None, ge=1, le=100_000, description="Optimizer steps.")
    learning_rate: float | None = Field(None, gt=0, le=1, description="AdamW's constant rate.")
    seed: int = Field(0, ge=0, lt=2**63, description="Everything random is drawn from it.")
    attention: Literal["sparse_causal", "causal", "full", "frame"] | None = Field(None, description="ST-Attn mode.")
    group_norm: Literal["video", "frame"] | None = Field(None, description="ResNet GroupNorm over the video or per frame.")
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations to save memory; with `memory` left to `auto`, settle this much of it."
    )


class TuningParams(_Request, _Tuning):
    """How to tune. Every field may be left out."""

    memory: Literal["auto"] | MemorySetting = Field(
        "auto", description="`auto` takes the fastest setting that fits, and a leaner one after an out of memory."
    )

    @model_validator(mode="after")
    def _one_word_on_checkpointing(self) -> TuningParams:
        if self.memory != "auto" and self.gradient_checkpointing not in (None, self.memory.gradient_checkpointing):
            raise ValueError("gradient_checkpointing and memory.gradient_checkpointing contradict each other: give one of them")
        return self


class JobParams(_Kept, _Response, _Tuning):
    """How a job is tuned, as it was asked for; a newer service may say more."""

    memory: Literal["auto"] | JobMemory = "auto"


class PhaseEstimate(_Response):
    """One phase of a job: tuning, inversion, or the sampling of its videos."""

    peak_memory_bytes: int
    seconds: float


class Estimate(_Response):
    """Peak memory and time of a job in one memory setting on one device, predicted by a model fitted on measured runs."""

    memory: JobMemory = Field(description="The setting.")
    device: str
    device_memory_bytes: int
    peak_memory_bytes: int = Field(description="Of the device, the largest of the phases'.")
    host_memory_bytes: int = Field(description="What offloading keeps in host memory besides.")
    seconds: float = Field(description="Of all phases. Loading a base, transfers and waiting are not counted.")
    fits: bool = Field(description="Also if the peak is larger by `memory_error`.")
    phases: dict[str, PhaseEstimate] = Field(description="`tuning`, `inversion`, and `sampling` where there is something to.")
    memory_error: float | None = Field(
        description="The model's largest error on measured runs that it had not seen, as a share; null: no run was ever "
        "measured on such a device, and it is predicted from counts and data sheets alone."
    )
    time_error: float | None = Field(description="Likewise.")


class EstimateCreate(_Request):
    """`POST /v1/estimates`: what a job would take."""

    base: str | None = Field(None, max_length=256, description="Base to tune on; left out, the service's own.")
    params: TuningParams = Field(default_factory=TuningParams)
    videos: int = Field(1, ge=0, le=8, description="Sampled after tuning.")
    gpus: int = Field(1, ge=1, le=64, description="GPUs that tune the clip together.")
    device: str | None = Field(
        None, max_length=64, description="A GPU type, such as `A100-80G`, or `cpu`; left out, what the service has."
    )


class Estimates(_Response):
    """What a job would take in each memory setting that it would be tried in, and which it would begin with."""

    object: Literal["estimate"] = "estimate"
    num_frames: int
    size: tuple[int, int]
    steps: int
    videos: int
    gpus: int
    settings: list[Estimate]
    chosen: int = Field(description="Index of the fastest that fits; of the last, the leanest, if none does.")

    def _repr_html_(self) -> str:
        from tav_client._tables import estimates  # only notebooks need it

        return estimates(self)


Truncate = Literal["end", "error"]
"""What becomes of a text beyond the window of the base's text encoder."""


class TuningJobCreate(_Request):
    """`POST /v1/tuning-jobs`: JSON with `clip_uri`, or multipart with the file part `clip` and the rest as part `job`."""

    caption: Prompt | None = Field(
        None, description="The source prompt: what the clip shows. Left out, the service's captioner says it, if it has one."
    )
    clip_uri: str | None = Field(None, max_length=1024, description="`s3://bucket/key` in an allowed bucket.")
    model: ModelName | None = Field(None, description="Registry name; left out, made from the caption.")
    base: str | None = Field(None, max_length=256, description="Base to tune on; left out, the service's own.")
    params: TuningParams = Field(default_factory=TuningParams)
    validation_prompts: list[Prompt] = Field(default_factory=list, max_length=8, description="Sampled after tuning.")
    truncate: Truncate = Field(
        "end",
        description="Where caption or validation prompts are longer than the base reads: `end` cuts them and tells in "
        "`unread`, `error` refuses them.",
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    gpus: int | None = Field(None, ge=1, le=64, description="GPUs that tune the clip together; left out, the service's own.")
    gpu_type: Label | None = Field(None, description="Only on GPUs of this type (Ray's accelerator type, e.g. `A100`).")
    queue_deadline_seconds: int | None = Field(
        None, ge=1, description="It fails if it waits longer for a tuner; left out, the service's own limit."
    )
    run_deadline_seconds: int | None = Field(
        None, ge=1, description="It fails if it runs longer, counted from its first start; left out, the service's own limit."
    )
    batch: Label | None = Field(None, description="Jobs of one batch are listed, summarised and cancelled together.")
    metadata: dict[Label, Annotated[str, StringConstraints(max_length=512)]] = Field(
        default_factory=dict, max_length=16, description="Yours to choose; lists can be filtered by it."
    )


class ClipInfo(_Response):
    """The stored clip, and how it was read."""

    uri: str
    sha256: str
    width: int = Field(description="As used: turned as the file says, in square pixels.")
    height: int
    num_frames: int
    fps: float = Field(description="Frames per second, by the frames' times.")
    duration: float | None = Field(None, description="Seconds.")
    codec: str | None = None
    notes: list[str] = Field(
        default_factory=list, description="What was done to show it as a player does, e.g. `tone-mapped from HLG`."
    )


class TuningJob(_Response):
    """One clip tuned on one base with one configuration."""

    id: str
    object: Literal["tuning_job"] = "tuning_job"
    status: JobStatus
    phase: JobPhase | None = Field(None, description="What it does; of one that failed or was cancelled, where it ended.")
    waits_for: WaitsFor | None = Field(None, description="What it waits for while it is queued.")
    step: int = Field(0, description="Steps done in this phase.")
    total_steps: int | None = Field(None, description="Steps of this phase.")
    progress: float = Field(0.0, description="Of the whole job, 0–1.")
    loss: float | None = None
    eta_seconds: float | None = None
    attempt: int = Field(0, description="How often a tuner has begun it.")
    excused_attempts: int = Field(
        0,
        description="Attempts that ended by no fault of the job or its process (a node taken away with notice, a restart of "
        "the service) and so do not count towards the limit.",
    )
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    caption: str | None = Field(description="Null until the service has captioned a clip that came without.")
    caption_source: Literal["given", "automatic"] = "given"
    clip: ClipInfo
    base: str
    model: str
    version: int | None = Field(None, description="The registered version, once succeeded.")
    params: JobParams
    estimate: Estimate | None = Field(
        None,
        description="What it takes, predicted when it was submitted, and anew by its tuner for each memory setting that it "
        "works in; null where the base's architecture or the device is not known.",
    )
    validation_prompts: list[str] = Field(default_factory=list)
    truncate: Truncate = "end"
    unread: dict[str, str] = Field(
        default_factory=dict,
        description="What the base does not read, being too long for it: the ends of `caption` and `validation_prompts.N`.",
    )
    priority: int = 0
    gpus: int = Field(1, description="GPUs that tune it together.")
    gpu_type: str | None = None
    queue_deadline_seconds: float | None = None
    run_deadline_seconds: float | None = None
    tenant: str = Field("default", description="Whose job it is.")
    batch: str | None = None
    retry_of: str | None = Field(None, description="The job that this one repeats.")
    request_id: str | None = Field(
        None, description="`x-request-id` of the call that made it; the service's log lines carry it."
    )
    cancel_requested: bool = Field(False, description="It runs, but is to stop.")
    error: Failure | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    mlflow_url: str | None = Field(None, description="The job's run in the MLflow UI.")


class Batch(_Response):
    """The jobs of one batch, counted."""

    id: str
    object: Literal["batch"] = "batch"
    total: int
    counts: dict[JobStatus, int] = Field(description="Jobs by status.")
    finished: bool = Field(description="True when no job of it is open any more.")


class JobDeleted(_Response):
    """Answer of a deletion."""

    id: str
    object: Literal["tuning_job.deleted"] = "tuning_job.deleted"
    deleted: bool = True


class StoredFile(_Response):
    """One object of a model version."""

    uri: str
    sha256: str
    size: int = Field(description="Bytes.")


class ModelVersion(_Response):
    """One numbered delta and its inverted latents."""

    name: str
    version: int
    object: Literal["model_version"] = "model_version"
    created_at: float
    job_id: str
    base: str
    base_fingerprint: str
    caption: str
    num_frames: int
    size: tuple[int, int]
    aliases: list[str] = Field(default_factory=list)
    files: dict[str, StoredFile] = Field(default_factory=dict, description="`delta.safetensors`, `latents.safetensors`, …")


class Model(_Response):
    """A named entry of the registry."""

    name: str
    object: Literal["model"] = "model"
    created_at: float
    updated_at: float
    latest_version: int
    aliases: dict[str, int] = Field(default_factory=dict)
    tenant: str = Field("default", description="Whose it is.")
    shared: bool = Field(False, description="Other tenants may sample it, as `TENANT~NAME`.")


class ModelUpdate(_Request):
    """`PATCH /v1/models/{name}`."""

    shared: bool = Field(description="Whether other tenants may sample it. It stays its owner's to change.")


class AliasSet(_Request):
    """`PUT /v1/models/{name}/aliases/{alias}`."""

    version: int = Field(ge=1, le=999_999_999, description="What the alias shall point at.")


class ModelDeleted(_Response):
    """Answer of `DELETE /v1/models/{name}`."""

    name: str
    object: Literal["model.deleted"] = "model.deleted"
    deleted: bool = True


class ModelVersionDeleted(_Response):
    """Answer of `DELETE /v1/models/{name}/versions/{v}`."""

    name: str
    version: int
    object: Literal["model_version.deleted"] = "model_version.deleted"
    deleted: bool = True


class UploadCreate(_Request):
    """`POST /v1/uploads`."""

    bytes: int = Field(gt=0, description="The clip's size.")
    content_type: Annotated[
        str,
        StringConstraints(pattern=r"^(video/[a-z0-9.+-]{1,64}|image/(gif|webp))$"),
        _told("it is video/…, image/gif or image/webp"),
    ] = "video/mp4"


class Upload(_Response):
    """Where to upload a clip to."""

    object: Literal["upload"] = "upload"
    method: Literal["PUT"] = "PUT"
    url: str = Field(description="Takes one file by PUT until `expires_at`; needs no key.")
    headers: dict[str, str] = Field(description="To be sent with it.")
    clip_uri: str = Field(description="Names the clip in a tuning job.")
    expires_at: WholeSeconds


def _parsed_interval(value: Any) -> Any:
    """As text, for command lines and forms: `BEGIN-END`."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{0,9}\.?\d{1,9})-(\d{0,9}\.?\d{1,9})", value)):
        return float(found[1]), float(found[2])
    return _pair(value)


_Share = Annotated[float, Field(ge=0, le=1)]
_IntervalText = Annotated[str, StringConstraints(pattern=r"^[0-9]{0,9}[.]?[0-9]{1,9}-[0-9]{0,9}[.]?[0-9]{1,9}$")]
StepInterval = Annotated[
    tuple[_Share, _Share], BeforeValidator(_parsed_interval, json_schema_input_type=tuple[_Share, _Share] | _IntervalText)
]


def _parsed_seconds(value: Any) -> Any:
    """OpenAI writes seconds as a text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d{1,4}(\.\d{1,9})?", value) else value


_Played = Annotated[float, Field(gt=0, le=3600)]
_PlayedText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}([.][0-9]{1,9})?$")]
PlayedSeconds = Annotated[_Played, BeforeValidator(_parsed_seconds, json_schema_input_type=_Played | _PlayedText)]
"""How long a video plays."""


class _VideoFields(BaseModel):
    """What a video is made from."""

    model: ModelRef = Field(description="`name`, `name@alias` or `name/version`.")
    prompt: Prompt = Field(description="The edited prompt.")
    negative_prompt: str = Field("", max_length=1000)
    truncate: Truncate = Field(
        "end",
        description="Where a prompt is longer than the base reads: `end` cuts it and tells in `unread`, `error` refuses it.",
    )
    guidance_scale: float | None = Field(None, ge=1, le=50)
    guidance_interval: StepInterval | None = Field(
        None,
        description="`[from, until]` or `FROM-UNTIL`, shares of the steps: guidance only there; other steps cost half.",
    )
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="How much of the denoising the prompt decides. Below 1, the first steps retrace the clip's inversion.",
    )
    feature_injection: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the first steps that take over the clip's features: things stay where they are.",
    )
    scheduler: Literal["ddim", "dpmpp_2m", "unipc"] | None = Field(
        None, description="Sampler: `ddim`, the paper's, or a multistep solver that needs fewer steps."
    )
    cache_interval: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="In one of so many steps the whole network is computed; those between reuse its features.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of the Gaussian noise, where any is used.")
    use_inverted_latents: bool = Field(True, description="Start from the clip's inverted latents, which keep its motion.")
    noise_blend: float | None = Field(
        None, ge=0, le=1, description="Share of the inverted latents' variance replaced by noise: 0 keeps the clip's motion."
    )
    num_frames: int | None = Field(None, ge=1, le=512, description="Only without inverted latents.")
    size: VideoSize | None = Field(None, description="`[width, height]` or `WIDTHxHEIGHT`; only without inverted latents.")
    fps: float | None = Field(None, ge=0.01, le=120, description="Left out, the clip's sampled rate.")
    seconds: PlayedSeconds | None = Field(
        None, description="How long the frames play: sets their rate. Give fps or seconds, not both."
    )
    format: VideoFormat = "mp4"
    record: bool = Field(
        True, description="Keep it, as a run below its tuning job's. Without, only `/v1/videos/sync` takes it."
    )


class VideoCreate(_VideoFields, _Request):
    """`POST /v1/videos` and `POST /v1/videos/sync`."""

    @field_validator("noise_blend")
    @classmethod
    def _something_to_blend(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value and not info.data.get("use_inverted_latents", True):
            raise ValueError("needs inverted latents: leave it out, or use_inverted_latents")
        return value

    @field_validator("guidance_interval")
    @classmethod
    def _from_before_until(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] >= value[1]:
            raise ValueError("must begin before it ends: give the lower share first, as in [0, 0.6]")
        return value


class VideoRequest(_Kept, _VideoFields, _Response):
    """A video's request as it was accepted."""


class VideoStatus(StrEnum):
    """Where a video stands; OpenAI's words."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"

    @property
    def final(self) -> bool:
        """True when the status will not change any more."""
        return self in (VideoStatus.completed, VideoStatus.failed)


class Video(_Response):
    """The result of sampling, in the shape of OpenAI's `videos` resource."""

    id: str
    object: Literal["video"] = "video"
    tenant: str = Field("default", description="Whose video it is.")
    created_at: WholeSeconds
    completed_at: WholeSeconds | None = None
    status: VideoStatus
    progress: int = Field(0, description="Percent.")
    step: int = Field(0, description="Denoising steps done.")
    total_steps: int | None = Field(None, description="Known from the first step on.")
    model: str = Field(description="As asked for.")
    model_version: str = Field(description="What it meant: `name/version`.")
    prompt: str
    unread: dict[str, str] = Field(
        default_factory=dict,
        description="What the base does not read, being too long for it: the ends of `prompt` and `negative_prompt`.",
    )
    request: VideoRequest
    seconds: str | None = None
    size: str | None = Field(None, description="`WIDTHxHEIGHT`.")
    format: VideoFormat = "mp4"
    latents_sha256: str | None = Field(
        None, description="Of the latents it was decoded from: the same version and request give the same on the same hardware."
    )
    request_id: str | None = Field(None, description="`x-request-id` of the call that made it.")
    error: Failure | None = None
    mlflow_url: str | None = None


class VideoDeleted(_Response):
    """Answer of `DELETE /v1/videos/{id}`."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


T = TypeVar("T")


class Page(_Response, Generic[T]):
    """One page of a list, newest first. Ask for the next with `after=next_cursor`."""

    object: Literal["list"] = "list"
    data: list[T]
    next_cursor: str | None = None
    has_more: bool = False

    def _repr_html_(self) -> str:
        from tav_client._tables import entries  # only notebooks need it

        return entries(self.data, more=self.has_more)


class VideoPage(Page[Video]):
    """A page of videos; OpenAI's clients go on after `last_id`, which is the same as `next_cursor`."""

    first_id: str | None = None
    last_id: str | None = None


class Problem(_Response):
    """Every error's body, `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="A sentence that says what to do.")
    code: str = Field(description="Stable and machine-readable, e.g. `model_not_found`.")
    errors: list[dict[str, Any]] | None = Field(None, description="One entry per invalid field.")
    error: dict[str, Any] | None = Field(None, description="OpenAI's error object, on video calls.")
