"""`client.videos`: videos of edited prompts, and the handle that follows one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tav_client import _calls, schemas
from tav_client._content import VideoContent
from tav_client._errors import VideoFailed, WaitTimeout
from tav_client._progress import watching_video
from tav_client._transport import Transport

OnVideo = Callable[[schemas.Video], object]


class Video:
    """A video as last seen, and what can be done with it."""

    def __init__(self, videos: Videos, polled: _calls.Polled) -> None:
        self._videos = videos
        self._polled = polled

    def __repr__(self) -> str:
        return f"Video(id='{self.id}', status='{self.status}', model='{self.model_version}', prompt={self.snapshot.prompt!r})"

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
        """Asks for the video as it is now."""
        self._polled = self._videos._transport.send(_calls.get_video(self.id))
        return self

    def wait(self, timeout: float | None = None, *, progress: bool = False, on_update: OnVideo | None = None) -> Video:
        """Waits until it is completed, asking as often as the service says.

        Args:
            timeout: Seconds; None: as long as it takes.
            progress: Show how far it is on stderr.
            on_update: Called with every snapshot.

        Raises:
            VideoFailed: It failed.
            WaitTimeout: It goes on.
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
        """Its bytes; waits for it first."""
        self.wait()
        return self._videos.content(self.id)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it to a file; waits for it first.

        Returns:
            Where it is.
        """
        return self.content().save(path)


class Videos:
    """Asks for videos and fetches them.

    The options of a video are the fields of `schemas.VideoCreate`: `negative_prompt`, `guidance_scale`, `num_inference_steps`,
    `scheduler`, `strength`, `feature_injection`, `seed`, `use_inverted_latents`, `noise_blend`, `num_frames`, `size`, `fps`,
    `format`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, model: str, prompt: str, idempotency_key: str | None = None, **options: Any) -> Video:
        """Asks for a video; returns as soon as it is kept.

        Args:
            model: `name` (its latest version), `name@alias` or `name/version`.
            prompt: The edited prompt.
            idempotency_key: The same key and request twice make one video; left out, a random one.
            **options: See the class.

        Raises:
            InvalidRequest: An argument is wrong; nothing was sent.
            NotFound: There is no such model or version.
        """
        request = _video_request(model, prompt, options)
        return Video(self, self._transport.send(_calls.create_video(request, idempotency_key)))

    def get(self, id: str) -> Video:
        """The video as it is now.

        Raises:
            NotFound: There is no such video.
        """
        return Video(self, self._transport.send(_calls.get_video(id)))

    def content(self, id: str) -> VideoContent:
        """The bytes of a completed video.

        Raises:
            Conflict: It is not completed.
        """
        return self._transport.send(_calls.video_content(id))

    def create_and_save(
        self, path: str | os.PathLike[str], *, model: str, prompt: str, progress: bool = False, **options: Any
    ) -> Video:
        """Asks for a video, waits for it and writes it to `path`; one that ends with `.gif` asks for a gif."""
        video = self.create(model=model, prompt=prompt, **(_format_for(path) | options))
        video.wait(progress=progress).save(path)
        return video

    def sync(self, *, model: str, prompt: str, **options: Any) -> VideoContent:
        """A video's bytes in one request, which lasts as long as the sampling; the arguments are those of `create`."""
        return self._transport.send(_calls.sync_video(_video_request(model, prompt, options)))


def _video_request(model: str, prompt: str, options: dict[str, Any]) -> schemas.VideoCreate:
    return _calls.request_of(schemas.VideoCreate, {"model": model, "prompt": prompt} | options)


def _format_for(path: str | os.PathLike[str]) -> dict[str, str]:
    return {"format": "gif"} if Path(path).suffix.lower() == ".gif" else {}
