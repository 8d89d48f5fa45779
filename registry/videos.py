"""Videos. A video is an MLflow run nested under its tuning job's, so that the UI shows every clip with its samples."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.entities import Run

from registry.errors import NotFound, NotReady
from registry.objects import ObjectStore
from registry.pictures import LOGGED, artifacts
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, TENANT, called
from registry.tracking import (
    REQUEST_ID,
    Runs,
    artifact_uri,
    join_tag,
    key_digest,
    now_ms,
    seconds,
    split_tag,
    tag_equals,
    tenant_of,
    unread_of,
    unread_tags,
)
from tav_client.schemas import Failure, ModelVersion, Video, VideoCreate, VideoPage, VideoRequest, VideoStatus

RUN_STATUS = {
    VideoStatus.queued: "SCHEDULED",
    VideoStatus.in_progress: "RUNNING",
    VideoStatus.completed: "FINISHED",
    VideoStatus.failed: "FAILED",
}
"""The one table of video status and MLflow run status."""

_VIDEO_STATUS = {run: video for video, run in RUN_STATUS.items()} | {"KILLED": VideoStatus.failed}
_KEY = "tav.idempotency_key"


class VideoStore:
    """Videos. Methods block; a change is stored when they return."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore | None = None) -> None:
        self._runs = Runs(settings, "video", "video")
        self._objects = objects or ObjectStore(settings)

    def create(
        self,
        request: VideoCreate,
        version: ModelVersion,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        unread: Mapping[str, str] | None = None,
    ) -> Video:
        """Store a new video, queued.

        Args:
            request: as the user sent it.
            version: what its `model` refers to now.
            idempotency_key: lets `find` return the same video for a repeated request.
            request_id: of the call that creates it, for the log lines of all processes.
            tenant: whose video it is.
            unread: what the base does not read of its texts, as far as that is known.
        """
        tags = {
            **split_tag("tav.request", request.model_dump_json(exclude_none=True)),
            "tav.model": version.name,
            "tav.model_version": f"{version.name}/{version.version}",
            TENANT: tenant,
            "mlflow.parentRunId": version.job_id,
            "mlflow.note.content": request.prompt,
            "mlflow.source.name": "tav",
            **({REQUEST_ID: request_id} if request_id else {}),
            **(unread_tags(unread) if unread else {}),
        }
        if idempotency_key is not None:
            tags[_KEY] = key_digest(idempotency_key)
        with self._runs.creating(request.prompt[:100], tags) as run:
            params = request.model_dump(mode="json", exclude_none=True, exclude={"model", "record"})
            self._runs.log(run.info.run_id, params={"model_version": tags["tav.model_version"], **params})
            info = self._runs.set_status(run.info.run_id, RUN_STATUS[VideoStatus.queued])
        return self._video(Run(info, run.data))

    def find(self, idempotency_key: str, tenant: str = DEFAULT_TENANT) -> Video | None:
        """Return the newest video that the tenant created with a key."""
        conditions = [tag_equals(_KEY, key_digest(idempotency_key)), tag_equals(TENANT, tenant)]
        run = next(self._runs.search(conditions), None)
        return None if run is None else self._video(run)

    def get(self, video_id: str, tenant: str | None = None) -> Video:
        """Return a video; another tenant's counts as missing."""
        run = self._runs.get(video_id)
        if tenant not in (None, tenant_of(run)):
            raise NotFound("video", video_id)
        return self._video(run)

    def open(self) -> list[Video]:
        """Return all videos that have not ended, oldest first."""
        return [self._video(run) for run in self._runs.open(begun="tav.started_at")]

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        model: str | None = None,
        oldest_first: bool = False,
        tenant: str | None = None,
    ) -> VideoPage:
        """Return a page of videos, newest first by default.

        Args:
            after: `next_cursor` of the page before.
            limit: how many at most.
            model: only this model's, by its name in MLflow.
            oldest_first: reverse the order.
            tenant: only this tenant's.
        """
        conditions = [] if model is None else [tag_equals("tav.model", model)]
        if tenant is not None:
            conditions.append(tag_equals(TENANT, tenant))
        videos, cursor = self._runs.page(self._video, after, limit, conditions, oldest_first=oldest_first, tenant=tenant)
        first, last = (videos[0].id, videos[-1].id) if videos else (None, None)
        return VideoPage(data=videos, next_cursor=cursor, has_more=cursor is not None, first_id=first, last_id=last)

    def start(self, video_id: str, unread: Mapping[str, str] | None = None) -> None:
        """Record that a sampler starts the video, and what the base does not read of its texts."""
        self._runs.log(video_id, tags={"tav.started_at": str(now_ms()), **(unread_tags(unread) if unread else {})})
        self._runs.set_status(video_id, RUN_STATUS[VideoStatus.in_progress])

    def complete(
        self,
        video_id: str,
        data: bytes,
        seconds: float,
        size: tuple[int, int],
        metrics: Mapping[str, float] | None = None,
        latents_sha256: str | None = None,
        sheet: bytes | None = None,
    ) -> Video:
        """Store the content as the run's artifact `video.<format>`, then record that the video is completed.

        Args:
            video_id: the video's.
            data: the encoded video.
            seconds: how long it plays.
            size: width and height.
            metrics: logged to the run, such as `sampling_seconds`.
            latents_sha256: digest of the latents it was decoded from.
            sheet: a contact sheet (PNG), by which MLflow compares runs.
        """
        run = self._runs.get(video_id)
        stored = self._objects.put_bytes(data, self._content_uri(run))
        tags = {"tav.seconds": f"{seconds:g}", "tav.size": f"{size[0]}x{size[1]}", "tav.sha256": stored.sha256}
        if latents_sha256 is not None:
            tags["tav.latents_sha256"] = latents_sha256
        if sheet is not None:
            for name, picture in artifacts(run, "video", sheet).items():
                self._objects.put_bytes(picture, artifact_uri(run, name))
            tags |= LOGGED
        now = now_ms()
        self._runs.log(video_id, tags=tags, metrics=[(k, v, 0, now) for k, v in (metrics or {}).items()])
        self._runs.set_status(video_id, RUN_STATUS[VideoStatus.completed])
        return self.get(video_id)

    def fail(self, video_id: str, failure: Failure) -> Video:
        """Record why the video ended, also in a run that was deleted in MLflow, which may be restored."""
        tags = {"tav.error": failure.message, "tav.error_code": failure.code.value}
        self._runs.end(video_id, RUN_STATUS[VideoStatus.failed], tags)
        return self.get(video_id)

    def content(self, video_id: str) -> bytes:
        """Return a completed video's bytes, checked against the digest that is stored with it.

        Raises:
            NotReady: the video is not completed.
        """
        run = self._runs.get(video_id)
        if run.info.status != RUN_STATUS[VideoStatus.completed]:
            raise NotReady(f"Video {video_id} is not completed, so it has no content. Wait until its status is completed.")
        return self._objects.get_bytes(self._content_uri(run), run.data.tags.get("tav.sha256"))

    def delete(self, video_id: str) -> None:
        """Remove the video's content and then its run, so that a deletion that fails can be repeated.

        MLflow does not list a deleted run any more; `mlflow gc` removes its row.
        """
        run = self._runs.get(video_id)
        self._objects.delete_prefix(artifact_uri(run, "video").removesuffix("video"))
        self._runs.delete(video_id)

    def _content_uri(self, run: Run) -> str:
        return artifact_uri(run, f"video.{self._request(run).format}")

    @staticmethod
    def _request(run: Run) -> VideoRequest:
        return VideoRequest.model_validate_json(join_tag(run.data.tags, "tav.request"))

    def _video(self, run: Run) -> Video:
        tags, request = run.data.tags, self._request(run)
        status = _VIDEO_STATUS[run.info.status]
        if status is VideoStatus.in_progress and "tav.started_at" not in tags:
            status = VideoStatus.queued  # its creation failed before MLflow's RUNNING was changed
        steps = int(run.data.metrics.get("steps", 0)) if status is VideoStatus.completed else 0
        error = None
        if status is VideoStatus.failed:
            message = tags.get("tav.error") or "The video's run was ended in MLflow."
            error = Failure.model_validate({"code": tags.get("tav.error_code", "internal"), "message": message})
        return Video(
            id=run.info.run_id,
            tenant=tenant_of(run),
            created_at=run.info.start_time / 1000,
            completed_at=seconds(run.info.end_time) if status is VideoStatus.completed else None,
            status=status,
            progress=100 if status is VideoStatus.completed else 0,
            step=steps,
            total_steps=steps or None,
            model=request.model,
            model_version=called(tags["tav.model_version"], tenant_of(run)),
            prompt=request.prompt,
            unread=unread_of(tags),
            request=request,
            seconds=tags.get("tav.seconds"),
            size=tags.get("tav.size"),
            format=request.format,
            latents_sha256=tags.get("tav.latents_sha256"),
            request_id=tags.get(REQUEST_ID),
            error=error,
            mlflow_url=self._runs.url(run),
        )
