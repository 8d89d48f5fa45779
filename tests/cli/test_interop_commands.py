"""`tav import` and `tav export` on files and on a real registry."""

import uuid
from pathlib import Path

import mlflow
import pytest
import torch
from typer.testing import CliRunner

from registry.errors import NotFound
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.platform import Stack
from tav import Base, Delta, Latents
from tav.interop import import_checkpoint
from tav_client.cli import _app
from tav_client.schemas import VideoCreate
from tests.tav.conftest import write_random_base
from tests.tav.public_checkpoint import write_public_checkpoint

CLIP = ["--caption", "a red square", "--fps", "8"]


def tav(*words: object) -> object:
    return CliRunner().invoke(_app.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture(scope="module")
def public(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_public_checkpoint(tmp_path_factory.mktemp("public") / "a-red-square", base_folder)


def test_import_writes_what_export_writes_back(public: Path, base_folder: Path, tmp_path: Path) -> None:
    result = tav("import", public, "--base", base_folder, "--out", tmp_path / "ours", *CLIP)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'ours'}\n"), result.stderr
    assert "unet: frozen tensors differ from the base's by at most 0\n" in result.stderr
    assert Latents.load(tmp_path / "ours" / "latents.safetensors").tensor.shape == (1, 4, 5, 8, 8)
    result = tav("export", tmp_path / "ours", "--format", "tune-a-video", "--out", tmp_path / "back")
    assert result.exit_code == 0, result.stderr
    before, after = (
        torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=True) for folder in (public, tmp_path / "back")
    )
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert tav("export", tmp_path / "ours", "--out", tmp_path / "pipeline").exit_code == 0
    assert (tmp_path / "pipeline" / "pipeline.py").is_file() and (tmp_path / "pipeline" / "clip" / "tuned_clip.py").is_file()


def test_import_takes_the_base_out_of_the_folder_where_none_is_named(public: Path, tmp_path: Path) -> None:
    assert tav("import", public, "--out", tmp_path, *CLIP).exit_code == 0
    delta = Delta.load(tmp_path / "delta.safetensors")
    assert delta.meta.origin.base == str(tmp_path / "base")
    delta.meta.origin.check(Base.load(str(tmp_path / "base")))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give a folder with --out, a model's name with --register, or both"),
        (["--register", "red"], "give --out as well"),
        (["--register", "Red!", "--base", "offline"], "'Red!' cannot name a model"),
        (["--register", "red", "--base", "offline", "--tenant", "a~b"], "'a~b' cannot name a tenant"),
        (["--out", "{tmp}", "--base", "offline"], "only "),
        (["--out", "{tmp}", "--base", "{base}"], "give --caption, --fps"),
    ],
)
def test_a_refused_import_is_a_sentence(
    public: Path, base_folder: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    words = [word.format(tmp=tmp_path / "out", base=base_folder) for word in words]
    result = tav("import", public, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr and "Traceback" not in result.stderr


def test_an_imported_version_is_a_run_of_its_own_kind_that_samples_and_exports_like_any_other(
    public: Path, base_folder: Path, tmp_path: Path, mlflow_server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = f"red-{uuid.uuid4().hex[:8]}", ["--data-dir", mlflow_server.root]
    result = tav("import", public, "--base", base_folder, "--register", name, *CLIP, *data)
    assert (result.exit_code, result.stdout) == (0, f"{name}/1\n"), result
    settings = mlflow_server.settings()
    version = VersionStore(settings).resolve(name)
    assert (version.caption, version.num_frames, version.size) == ("a red square", 5, (16, 16))
    assert version.base_fingerprint == Base.load(str(base_folder)).fingerprint
    for key, value in mlflow_server.environment().items():
        monkeypatch.setenv(key, value)
    run = mlflow.MlflowClient(settings.mlflow_tracking_uri).get_run(version.job_id)
    assert (run.info.status, run.data.tags["tav.kind"], run.data.tags["tav.version"]) == ("FINISHED", "import", "1")
    assert run.data.tags["tav.media.source"] == str(public) and run.data.metrics["deviation.unet"] == 0
    video = VideoStore(settings).create(VideoCreate(model=name, prompt="a blue square"), version)
    nested = mlflow.MlflowClient(settings.mlflow_tracking_uri).get_run(video.id)
    assert nested.data.tags["mlflow.parentRunId"] == version.job_id
    rows = mlflow.pyfunc.load_model(f"models:/{name}/1").predict([{"prompt": "a blue square", "num_inference_steps": 2}])
    assert (rows[0]["num_frames"], rows[0]["size"]) == (5, (16, 16))
    result = tav("export", f"{name}/1", "--out", tmp_path / "pipeline", *data)
    assert result.exit_code == 0, result.stderr
    back = import_checkpoint(tmp_path / "pipeline", Base.load(str(base_folder))).delta
    state = torch.load(public / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.tensors.items())


def test_import_and_export_find_the_stack_as_the_document_calls_them(
    public: Path, base_folder: Path, tmp_path: Path, mlflow_server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"red-{uuid.uuid4().hex[:8]}"
    (tmp_path / "a-red-square").symlink_to(public)
    words = ["import", "./a-red-square", "--base", base_folder, *CLIP, "--register", name]
    nothing = tav(*words)
    assert nothing.exit_code == 1 and f"No stack runs in {tmp_path}/.data: start it with `tav platform up" in nothing.stderr
    (tmp_path / ".data").symlink_to(mlflow_server.root)
    imported = tav(*words)
    assert (imported.exit_code, imported.stdout) == (0, f"{name}/1\n"), imported.stderr
    VersionStore(mlflow_server.settings()).set_alias(name, "production", 1)
    exported = tav("export", f"{name}@production", "--format", "tune-a-video", "--out", "folder")
    assert (exported.exit_code, exported.stdout) == (0, "folder\n"), exported.stderr
    for key, value in mlflow_server.environment().items():  # joined, as `tav platform env` has it
        monkeypatch.setenv(key, value)
    (tmp_path / ".data").unlink()
    assert tav("export", name, "--out", "pipeline").exit_code == 0


def test_an_import_that_fails_leaves_no_version(public: Path, base_folder: Path, mlflow_server: Stack, tmp_path: Path) -> None:
    name = f"red-{uuid.uuid4().hex[:8]}"
    (tmp_path / "unet").mkdir()
    for file in (public / "unet").iterdir():
        (tmp_path / "unet" / file.name).symlink_to(file)
    facts = [*CLIP, "--frames", "5", "--size", "16x16"]
    result = tav(
        "import", tmp_path / "unet", "--base", base_folder, "--register", name, *facts, "--data-dir", mlflow_server.root
    )
    assert result.exit_code == 1
    assert "a version needs inverted latents" in result.stderr
    with pytest.raises(NotFound):
        VersionStore(mlflow_server.settings()).resolve(name)
