"""The container file, as the script that runs its steps reads it."""

from __future__ import annotations

import pytest

from tools.build_rootfs import CHECKOUT, CONTAINERFILE, parse


def test_the_image_is_built_in_one_stage_and_runs_in_another_as_nobody_special() -> None:
    build, last = parse(CONTAINERFILE.read_text())
    assert ("COPY", "--from=build /opt/tav /opt/tav") in last.steps
    assert last.steps[-1] == ("USER", "ray")
    assert any("useradd --uid 1000" in said for word, said in last.steps if word == "RUN")
    assert not any("g++" in said for _, said in last.steps), "compilers stay in the first stage"
    assert {build.suite, last.suite} == {"bookworm"}


def test_what_is_copied_exists_and_holds_no_weights_but_the_shipped_bases() -> None:
    copied = [said.split()[:-1] for stage in parse(CONTAINERFILE.read_text()) for word, said in stage.steps if word == "COPY"]
    paths = [CHECKOUT / path for words in copied if not words[0].startswith("--from") for path in words]
    assert all(path.exists() for path in paths)
    weights = [file for path in paths for file in path.rglob("*.safetensors")]
    assert weights and all("tav/bases/offline/" in str(file) for file in weights)


def test_every_package_that_is_pinned_for_the_image_is_pinned() -> None:
    steps = [said for stage in parse(CONTAINERFILE.read_text()) for word, said in stage.steps if word == "RUN"]
    installs = [said for said in steps if "pip install" in said and "venv" not in said]
    assert len(installs) == 2 and all("-c constraints.txt" in said for said in installs)


@pytest.mark.parametrize(
    ("text", "sentence"), [("FROM alpine:3\n", "only debian"), ("FROM debian:bookworm-slim\nADD x y\n", "'ADD x y' is not")]
)
def test_a_step_that_cannot_be_run_here_is_told(text: str, sentence: str) -> None:
    with pytest.raises(SystemExit, match=sentence):
        parse(text)
