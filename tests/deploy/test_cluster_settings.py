"""The operator's file: one place for everything, and sentences about what is wrong in it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.cluster import app
from services.cluster.render import environment, render
from services.cluster.settings import CLOUDS, PREFIX, ClusterError, OperatorSettings
from tav.errors import TavError
from tests.deploy.operator_file import CLOUD, EVERYWHERE, EXAMPLE, write_settings

CLOUD_NAMES = sorted(CLOUDS)


@pytest.mark.parametrize("cloud", CLOUD_NAMES)
def test_the_example_names_every_setting_of_a_cluster(cloud: str) -> None:
    named = set(re.findall(r"^(TAV_[A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    on_machines = {"MLFLOW_PORT", "STATE_DIR"}  # have no reason to change
    assert {f"{PREFIX}{field.upper()}" for field in CLOUDS[cloud].model_fields if field.upper() not in on_machines} <= named


@pytest.mark.parametrize("cloud", CLOUD_NAMES)
def test_each_value_that_a_cloud_needs_is_asked_for_by_name(cloud: str, tmp_path: Path) -> None:
    needed = ["TAV_CLUSTER_RAY_TOKEN", *(name for name in CLOUD[cloud] if name.startswith(PREFIX))]
    with pytest.raises(ClusterError) as caught:
        OperatorSettings(cloud, write_settings(cloud, tmp_path, **dict.fromkeys(needed)))
    for name in needed:
        assert f"{name} is missing. " in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"TAV_BASSE": "x"}, "TAV_BASSE is no setting"),
        ({"TAV_DEVICE": "gpu"}, "TAV_DEVICE must be 'auto', 'cpu' or 'cuda'"),
        ({"TAV_BASES": "one, two"}, "bases.*: lists and objects are written as JSON"),
        ({"TAV_CLUSTER_IMAGE": "registry.internal:5000/tav:latest"}, "may change under running machines"),
        ({"TAV_CLUSTER_IMAGE": "registry.internal:5000/tav"}, "may change under running machines"),
        ({"TAV_CLUSTER_RAY_TOKEN": "short"}, "TAV_CLUSTER_RAY_TOKEN must be of 32 characters or more"),
        ({"TAV_CLUSTER_MLFLOW_DATABASE": None}, "say where MLflow is, once"),
        ({"TAV_MLFLOW_TRACKING_URI": "https://mlflow.internal"}, "say where MLflow is, once"),
        ({"TAV_S3_ACCESS_KEY_ID": "AKIA"}, "instance profiles"),
        ({"TAV_HOST": "0.0.0.0"}, "TAV_API_KEYS_FILE"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_made(wrong: dict[str, str | None], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(TavError, match=sentence):
        render("aws", write_settings("aws", tmp_path, **wrong), tmp_path / "out", wheels=False)
    assert not (tmp_path / "out").exists()


def test_the_command_says_in_one_sentence_that_there_is_no_file(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["render", "aws", "--settings", str(tmp_path / "none.env")])
    assert isinstance(ran.exception, ClusterError) and "copy deploy/settings.example.env there" in str(ran.exception)


def test_what_this_shell_says_of_another_service_does_not_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAV_S3_BUCKET", "the-one-machine-stacks")
    monkeypatch.setenv("TAV_CLUSTER_NAME", "another")
    operator = OperatorSettings("aws", write_settings("aws", tmp_path))
    assert (operator.services.s3_bucket, operator.cluster.name) == ("clips", "tav")


def test_a_machine_reads_exactly_what_was_filled_in(tmp_path: Path) -> None:
    settings = write_settings("gcp", tmp_path, TAV_BASES='["acme/base"]', HF_TOKEN="hub $token")
    render("gcp", settings, tmp_path / "out", wheels=False)
    file = tmp_path / "out" / "node" / "settings.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (tmp_path / "tav").symlink_to(file.parent)
    printed = subprocess.run(
        ["bash", "-c", ". ~/tav/env.sh && env -0"], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True
    )
    seen = dict(line.split("=", 1) for line in printed.stdout.decode().split("\0") if "=" in line)
    meant = environment(OperatorSettings("gcp", settings), ["A100", "L4"])
    assert {name: seen.get(name) for name in meant} == meant
    assert seen["TAV_CLUSTER_MLFLOW_DATABASE"] == EVERYWHERE["TAV_CLUSTER_MLFLOW_DATABASE"]
    assert (seen["HF_TOKEN"], seen["AWS_ACCESS_KEY_ID"], seen["RAY_AUTH_MODE"]) == ("hub $token", "GOOG1EXAMPLE", "token")
    assert (seen["TAV_GPU_TYPES"], seen["TAV_DEVICE"]) == ('["A100", "L4"]', "cuda")
