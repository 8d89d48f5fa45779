"""Bases on the hub: what a name means there, and what to say of one that is not there."""

from __future__ import annotations

from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tav.bases.names import MOVED, parse
from tav.errors import BaseUnavailable


def download(name: str, patterns: list[str]) -> Path:
    """Download `owner/name` or `owner/name@revision` once, and return its folder in the hub's cache.

    Args:
        name: what is wanted.
        patterns: of the files that are wanted.

    Raises:
        BaseUnavailable: says why there is none, and what there is instead.
    """
    repo, revision = parse(name)
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise BaseUnavailable(
            f"{name!r} is neither a folder nor a name of the hub's: check the path, or use the shipped base 'offline'"
        ) from error
    except GatedRepoError as error:
        raise BaseUnavailable(
            f"the hub lets only those have {repo!r} who have accepted its terms: do so on its page, and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise BaseUnavailable(f"{repo!r} has no revision {revision!r} on the hub: {_revisions(repo)}") from error
    except RepositoryNotFoundError as error:
        raise BaseUnavailable(_gone(repo)) from error
    except LocalEntryNotFoundError as error:
        raise BaseUnavailable(
            f"{name!r} is neither a folder nor in the hub's cache, and the hub does not answer: check the network and "
            "HF_ENDPOINT, or use the shipped base 'offline'"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise BaseUnavailable(f"{name!r} could not be downloaded ({error}): try again") from error


def _gone(repo: str) -> str:
    if repo in MOVED:
        return f"{repo!r} has left the hub: use {MOVED[repo]!r}, a copy of it"
    others = ", ".join(sorted({*MOVED.values(), "CompVis/stable-diffusion-v1-4"}))
    return (
        f"the hub has no {repo!r}, or shows it only to its owners (set HF_TOKEN): check the name. It has {others}; "
        "'offline' ships with this package"
    )


def _revisions(repo: str) -> str:
    try:
        refs = HfApi().list_repo_refs(repo)
    except (HfHubHTTPError, httpx2.HTTPError, OSError):
        return "give a branch, a tag or a whole commit hash"
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    return f"there are {', '.join(names)}, and every commit by its whole hash"
