"""Real parts, started once per session: an S3 server, an MLflow server, and settings that point at them."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Several processes of tests share the cores: one thread each, and none that spins while it waits. torch reads these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Ray reads these once, when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as of the stack that tests join

import pytest
import ray

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.platform import PlatformSettings, Stack

FIRST = (
    "tests/behaviour/test_chaos.py",
    "platform",
    "tests/deploy/test_two_machines.py",
    "ray",
    "tests/deploy/test_postgresql.py",
    "tests/test_quality.py",
    "tests/tuning/test_deepspeed_engine.py",
    "tests/tuning/test_warm_tuner.py",
    "api",
    "registry",
)
"""Groups of tests that take minutes, in the order in which `make test`'s processes take them up."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the group that one process runs, put the long groups first, and mark what needs a server."""

    def place(item: pytest.Item) -> int:
        group = group_of(item)
        item.add_marker(pytest.mark.xdist_group(group))
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
        return FIRST.index(group) if group in FIRST else len(FIRST)

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest whose ids pytest-xdist cannot extend by the group: it would spread every test by itself."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not see the groups of tests: install the pytest of constraints.txt")


def group_of(item: pytest.Item) -> str:
    """Name what a test shares with others: a server that takes long to start, or else its file."""
    file, fixtures = item.nodeid.partition("::")[0], getattr(item, "fixturenames", ())
    if "cluster" in fixtures and "mlflow_server" in fixtures:
        return "ray"
    if file.startswith("tests/behaviour/") and "service" in fixtures:
        return "platform"
    if "mlflow_server" in fixtures:
        return file.split("/")[1] if file.startswith(("tests/api/", "tests/registry/")) else "registry"
    return file


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a data directory and ports of its own; fixtures bring up the parts that they need."""
    made = Stack(PlatformSettings(data_dir=tmp_path_factory.mktemp("stack")).with_free_ports())
    yield made
    made.down()


@pytest.fixture(scope="session")
def s3_server(stack: Stack) -> Stack:
    """A real S3 server with an empty bucket."""
    stack.up(["s3"])
    return stack


@pytest.fixture(scope="session")
def mlflow_server(s3_server: Stack) -> Stack:
    """A real MLflow server on SQLite, its artifacts in the S3 server."""
    s3_server.up(["s3", "mlflow"])
    return s3_server


@pytest.fixture(scope="session")
def registry_settings(mlflow_server: Stack) -> RegistrySettings:
    """Where the session's MLflow and S3 are."""
    return mlflow_server.settings()


@pytest.fixture(scope="session")
def cluster(mlflow_server: Stack) -> Iterator[Stack]:
    """A real Ray head beside S3 and MLflow, joined by this process in the namespace `tav`."""
    mlflow_server.up(["s3", "mlflow", "ray"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_server.environment().items():
            if name.startswith("RAY_"):
                patch.setenv(name, value)
        ray.init(address=mlflow_server.ray_address, namespace="tav", log_to_driver=False)
        yield mlflow_server
        ray.shutdown()


@pytest.fixture
def objects(s3_server: Stack) -> ObjectStore:
    """Objects in the session's S3 server."""
    return ObjectStore(s3_server.settings())


@pytest.fixture
def jobs(registry_settings: RegistrySettings) -> JobStore:
    """Jobs in the session's MLflow."""
    return JobStore(registry_settings)


@pytest.fixture
def versions(registry_settings: RegistrySettings) -> VersionStore:
    """Versions in the session's MLflow."""
    return VersionStore(registry_settings)


@pytest.fixture
def videos(registry_settings: RegistrySettings) -> VideoStore:
    """Videos in the session's MLflow."""
    return VideoStore(registry_settings)
