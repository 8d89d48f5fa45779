"""`client.videos`: videos of edited prompts, and the handle that follows one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from tav_client import _calls, _notebook, schemas
from tav_client._content import VideoContent, format_of_name
from tav_client._download import Download
from tav_client._errors import VideoFailed, WaitTimeout
from tav_client._events import EventStream
from tav_client._files import written_whole
from tav_client._listing import Listing
from tav_client._preview import preview
from tav_client._progress import read_video, watching_download, watching_video
from tav_client._sync.transport import Transport

OnVideo = Callable[[schemas.Video], object]


class Video:
    """A video as last seen, and what can be done with it."""

    def __init__(self, videos: Videos, polled: _calls.Polled) -> None:
        self._videos = videos
        self._polled = polled
        self._preview: str | None = None

    def __repr__(self) -> str:
        seen = f"id='{self.id}', status='{self.status}', model='{self.model_version}', prompt={self.snapshot.prompt!r}"
        return f"{type(self).__name__}({seen})"

    def _repr_html_(self) -> str:
        seen, reading = self.snapshot, read_video(self.snapshot)
        if seen.status is schemas.VideoStatus.completed and self._preview is None:
            self._preview = preview(self._videos._transport, self.id)
        return (self._preview or "") + _notebook.fields(
            seen.prompt,
            {
                "video": seen.id,
                "status": _notebook.bar(reading.fraction, reading.line()),
                "model": seen.model_version,
                "error": seen.error and seen.error.message,
                "MLflow": seen.mlflow_url,
            },
        )

    @property
    def snapshot(self) -> schemas.Video:
        """All fields as last seen; `refresh` and `wait` bring them up to date."""
        return self._polled.video

    @property
    def id(self) -> str:
        """The video's id."""
        return self.snapshot.id

    @property
    def status(self) -> schemas.VideoStatus:
        """Where it stood when last seen."""
        return self.snapshot.status

    @property
    def model_version(self) -> str:
        """`name/version` that is sampled."""
        return self.snapshot.model_version

    @property
    def error(self) -> schemas.Failure | None:
        """Why it failed, if it did."""
        return self.snapshot.error

    def refresh(self) -> Video:
        """Fetch the video as it is now."""
        self._polled = self._videos._transport.send(_calls.get_video(self.id))
        return self

    def wait(self, timeout: float | None = None, *, progress: bool = False, on_update: OnVideo | None = None) -> Video:
        """Wait until it is completed, asking as often as the service says.

        Args:
            timeout: seconds; None: as long as it takes.
            progress: show how far it is on stderr.
            on_update: called with every snapshot.

        Raises:
            VideoFailed: it failed.
            WaitTimeout: it goes on.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        with watching_video(progress) as show:
            while True:
                show(self.snapshot)
                if on_update is not None:
                    on_update(self.snapshot)
                if self.status.final:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(f"Video {self.id} is not completed in the time given; it goes on: wait again.")
                self._videos._transport.sleep(min(self._polled.after, left))
                self.refresh()
        if self.status is schemas.VideoStatus.failed:
            raise VideoFailed(self.snapshot)
        return self

    def content(self) -> VideoContent:
        """Return its bytes; wait for it first."""
        self.wait()
        return self._videos.content(self.id)

    def save(self, path: str | os.PathLike[str], *, progress: bool = False) -> Path:
        """Write it to a file; wait for it first.

        Args:
            path: folders on the way are made.
            progress: show how far it is, then how much has come, on stderr.

        Returns:
            Where it is.

        Raises:
            InvalidRequest: the name's ending is another format's than the video's.
        """
        format_of_name(path, self.snapshot.format)
        self.wait(progress=progress)
        return self._videos.download(self.id, path, progress=progress)

    def delete(self) -> None:
        """Remove it; one on its way is ended first."""
        self._videos.delete(self.id)


class Videos:
    """Asks for videos and fetches them.

    The options of a video, passed to `create` by name, are the fields of `schemas.VideoCreate`: `negative_prompt`,
    `truncate`, `guidance_scale`, `guidance_interval`, `num_inference_steps`, `scheduler`, `cache_interval`, `strength`,
    `feature_injection`, `seed`, `use_inverted_latents`, `noise_blend`, `num_frames`, `size`, `fps`, `seconds`, `format`,
    `record`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, model: str, prompt: str, idempotency_key: str | None = None, **options: Any) -> Video:
        """Ask for a video; return as soon as it is accepted.

        Args:
            model: `name` (its latest version), `name@alias` or `name/version`.
            prompt: the edited prompt.
            idempotency_key: the same key and request twice make one video; left out, a random one.
            **options: see the class.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            NotFound: there is no such model or version.
        """
        request = _video_request(model, prompt, options)
        return Video(self, self._transport.send(_calls.create_video(request, idempotency_key)))

    def get(self, id: str) -> Video:
        """Return the video as it is now.

        Raises:
            NotFound: there is no such video.
        """
        return Video(self, self._transport.send(_calls.get_video(id)))

    def list(
        self, *, model: str | None = None, order: Literal["asc", "desc"] | None = None, page_size: int | None = None
    ) -> Listing[Video]:
        """List all videos, newest first (`order="asc"`: oldest), fetched page by page as they are iterated over.

        Args:
            model: only videos of this model.
            order: by when they were asked for.
            page_size: videos a request.
        """
        snapshots = self._transport.every(lambda after: _calls.list_videos(after, page_size, order, model))
        return Listing(Video(self, _calls.Polled(snapshot, 0.0)) for snapshot in snapshots)

    def content(self, id: str, variant: _calls.Variant = "video") -> VideoContent:
        """Return the bytes of a completed video, or of its `thumbnail` (JPEG of the middle frame) or `spritesheet` (of all).

        Raises:
            Conflict: it is not completed.
        """
        return self._transport.send(_calls.video_content(id, variant))

    def download(
        self, id: str, path: str | os.PathLike[str], variant: _calls.Variant = "video", *, progress: bool = False
    ) -> Path:
        """Write a completed video's content to a file piece by piece; a cut connection resumes where it was.

        Args:
            id: the video's.
            path: folders on the way are made; the file is there whole or not at all.
            variant: which content.
            progress: show how much has come on stderr.

        Returns:
            Where it is.

        Raises:
            Conflict: it is not completed.
            InvalidRequest: the name's ending is another format's than the content's.
        """
        with written_whole(path) as file, watching_download(progress) as show:
            self._transport.download(Download(id, variant, file, path, show))
        return Path(path)

    def delete(self, id: str) -> None:
        """Remove a video; one on its way is ended first and its sampler is free.

        Raises:
            NotFound: there is no such video.
        """
        self._transport.send(_calls.delete_video(id))

    def events(self, id: str, *, last_event_id: str | None = None) -> Iterator[schemas.Video]:
        """Yield snapshots of a video, one for every step, until it is final. A cut connection resumes where it was."""
        return self._transport.follow(EventStream(id, schemas.Video, last_event_id=last_event_id))

    def create_and_save(
        self, path: str | os.PathLike[str], *, model: str, prompt: str, progress: bool = False, **options: Any
    ) -> Video:
        """Ask for a video, wait for it and write it to `path`, whose ending says the format: mp4, webm or gif.

        Raises:
            InvalidRequest: an argument is wrong, or the ending is no video's, or another format's than asked for.
        """
        options["format"] = format_of_name(path, options.get("format"))
        video = self.create(model=model, prompt=prompt, **options)
        video.save(path, progress=progress)
        return video

    def sync(self, *, model: str, prompt: str, **options: Any) -> VideoContent:
        """Return a video's bytes in one request, which lasts as long as the sampling; the arguments are those of `create`."""
        return self._transport.send(_calls.sync_video(_video_request(model, prompt, options)))


def _video_request(model: str, prompt: str, options: dict[str, Any]) -> schemas.VideoCreate:
    return _calls.request_of(schemas.VideoCreate, {"model": model, "prompt": prompt} | options)
