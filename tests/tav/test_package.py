"""The package's face and what it may need."""

import subprocess
import sys

import pytest

import tav


def test_exports_are_exactly_what_can_be_imported() -> None:
    assert tav.__all__ == sorted(tav.__all__)
    assert set(tav.__all__) == set(tav._HOME)
    assert all(getattr(tav, name) is not None for name in tav.__all__)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tav", ["torch", "ray", "mlflow", "boto3", "fastapi", "deepspeed"]),
        pytest.param(
            "tav.tuning, tav.sampling, tav.inversion",
            ["ray", "mlflow", "boto3", "fastapi", "deepspeed", "tav_client"],
            marks=pytest.mark.slow,
        ),
        ("tav.probe", ["torch", "diffusers", "ray"]),
        ("tav.eval, tav.eval.suite, tav.eval.layout", ["torch", "diffusers", "transformers", "cv2", "jinja2", "ray"]),
        ("tav.estimate, services.tuning.estimates", ["torch", "diffusers", "transformers", "ray", "mlflow", "fastapi"]),
        ("services.sampling.driver, services.sampling.deployment", ["torch", "diffusers", "transformers", "services.api"]),
        pytest.param(
            "tav.eval.local",
            ["ray", "mlflow", "boto3", "fastapi", "deepspeed", "tav_client", "services"],
            marks=pytest.mark.slow,
        ),
        ("tav.eval.scores", ["torch", "diffusers", "transformers", "jinja2", "ray"]),
        ("tav_client", ["torch", "ray", "mlflow", "tav"]),
    ],
)
def test_importing_needs_nothing_that_belongs_to_others(module: str, absent: list[str]) -> None:
    # Blocking is stricter than looking at sys.modules: it is a machine without those packages.
    code = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
