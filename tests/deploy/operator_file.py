"""An operator's settings file: the example with the values of a cloud."""

from __future__ import annotations

from pathlib import Path

from services.cluster.render import CHECKOUT

EXAMPLE = CHECKOUT / "deploy" / "settings.example.env"
EVERYWHERE = {
    "TAV_CLUSTER_RAY_TOKEN": "0123456789abcdef0123456789abcdef",
    "TAV_CLUSTER_MLFLOW_DATABASE": "postgresql://tav:a $ecret'@db.internal/tav",
    "TAV_S3_BUCKET": "clips",
}
CLOUD = {
    "aws": {
        "TAV_CLUSTER_AWS_REGION": "us-east-1",
        "TAV_CLUSTER_AWS_AMI": "ami-0123456789abcdef0",
        "TAV_CLUSTER_AWS_HEAD_PROFILE": "tav-head",
        "TAV_CLUSTER_AWS_GPU_PROFILE": "tav-gpu",
    },
    "gcp": {
        "TAV_CLUSTER_GCP_PROJECT": "some-project",
        "TAV_CLUSTER_GCP_REGION": "us-central1",
        "TAV_CLUSTER_GCP_ZONE": "us-central1-a",
        "TAV_CLUSTER_GCP_IMAGE": "projects/some/global/images/gpu-driver-1",
        "TAV_CLUSTER_GCP_HEAD_ACCOUNT": "head@some-project.iam.gserviceaccount.com",
        "TAV_CLUSTER_GCP_GPU_ACCOUNT": "gpu@some-project.iam.gserviceaccount.com",
        "TAV_S3_ENDPOINT_URL": "https://storage.googleapis.com",
        "TAV_S3_ACCESS_KEY_ID": "GOOG1EXAMPLE",
        "TAV_S3_SECRET_ACCESS_KEY": "hmac secret",
    },
    "kubernetes": {
        "TAV_CLUSTER_IMAGE": "registry.internal/tav:0.2.0",
        "TAV_HOST": "0.0.0.0",
        "TAV_API_KEYS_FILE": "s3://clips/operator/api-keys.json",
    },
}


def write_settings(cloud: str, folder: Path, **more: str | None) -> Path:
    """Write the example with a cloud's values and `more`; None leaves a setting empty."""
    values = EVERYWHERE | CLOUD[cloud] | more
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        name = line.partition("=")[0]
        if name in values:
            line = f"{name}={_quoted(values.pop(name))}"
        lines.append(line)
    lines += [f"{name}={_quoted(value)}" for name, value in values.items()]
    path = folder / f"{cloud}.env"
    path.write_text("\n".join(lines) + "\n")
    return path


def _quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
