"""Clips that go to S3 directly, past the gateway."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tav_client.schemas.common import Request, Response, WholeSeconds
from tav_client.schemas.names import explained


class UploadCreate(Request):
    """`POST /v1/uploads`."""

    bytes: int = Field(gt=0, description="The clip's size.")
    content_type: Annotated[
        str,
        StringConstraints(pattern=r"^(video/[a-z0-9.+-]{1,64}|image/(gif|webp))$"),
        explained("it is video/…, image/gif or image/webp"),
    ] = "video/mp4"


class Upload(Response):
    """Where to upload a clip to."""

    object: Literal["upload"] = "upload"
    method: Literal["PUT"] = "PUT"
    url: str = Field(description="Takes one file by PUT until `expires_at`; needs no key.")
    headers: dict[str, str] = Field(description="To be sent with it.")
    clip_uri: str = Field(description="Names the clip in a tuning job.")
    expires_at: WholeSeconds
