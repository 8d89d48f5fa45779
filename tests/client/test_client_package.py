"""What `import tav_client` gives, and what it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tav_client
from tav_client import TavClient, TavClientError, _errors
from tools import sync_client

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


def test_the_export_list_is_exactly_what_the_readme_documents() -> None:
    section = README.read_text().partition("## Names\n")[2].partition("\n## ")[0]
    documented = re.findall(r"`(\w+)`", "\n".join(line.split(" | ")[0] for line in section.splitlines()))
    assert sorted(documented) == sorted(set(tav_client.__all__) - {"__version__"})
    assert all(hasattr(tav_client, name) for name in tav_client.__all__)


def test_the_synchronous_client_is_what_the_asynchronous_one_makes(tmp_path: Path) -> None:
    sync_client.generate(tmp_path)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.py")}
    kept = {file.name: file.read_text() for file in (sync_client.PACKAGE / "_sync").glob("*.py")}
    assert made == kept, "run python tools/sync_client.py"


def test_the_client_tells_errors_in_the_methods_sentences() -> None:
    kept = (sync_client.PACKAGE / "_sentences.py").read_text()
    assert kept == sync_client.sentences(), "run python tools/sync_client.py"


def test_every_exported_class_and_every_method_of_it_says_what_it_is() -> None:
    for name in tav_client.__all__:
        thing = getattr(tav_client, name)
        if inspect.isclass(thing):
            assert thing.__doc__, name
            members = [m for key, m in vars(thing).items() if not key.startswith("_") and inspect.isfunction(m)]
            assert all(member.__doc__ for member in members), name


def test_the_drawing_of_the_errors_names_every_error() -> None:
    errors = [name for name, thing in vars(_errors).items() if inspect.isclass(thing) and issubclass(thing, TavClientError)]
    assert errors
    assert all(name in (_errors.__doc__ or "") and name in tav_client.__all__ for name in errors)


def test_importing_it_is_light() -> None:
    code = "import sys, httpx, pydantic\nknown = set(sys.modules)\nimport tav_client\nprint(*set(sys.modules) - known)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = out.split()
    heavy = {"torch", "ray", "mlflow", "boto3", "numpy", "typer", "rich", "yaml", "tav", "registry", "services"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in modules)


def test_the_address_and_the_key_come_from_arguments_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAV_URL", raising=False)
    assert TavClient().base_url == "http://127.0.0.1:8000"
    monkeypatch.setenv("TAV_URL", "https://tav.example.org/v1/")
    monkeypatch.setenv("TAV_API_KEY", "from-environment")
    client = TavClient()
    assert client.base_url == "https://tav.example.org"
    assert client._transport.http.headers["authorization"] == "Bearer from-environment"
    assert TavClient(api_key="given")._transport.http.headers["authorization"] == "Bearer given"


def test_a_key_from_a_file_loses_its_line_end_and_one_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAV_API_KEY", " tav_3f0c9a4b_x\r\n")
    assert TavClient()._transport.http.headers["authorization"] == "Bearer tav_3f0c9a4b_x"
    for wrong in ("schlüssel", "tav_3f0c9a4b_\x1b[31m", "tav_3f0c9a4b\n_x"):
        with pytest.raises(tav_client.InvalidRequest, match="characters that no key has"):
            TavClient(api_key=wrong)


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://somewhere", "not an address", "http://"])
def test_an_address_that_is_none_is_refused_with_a_sentence(address: str) -> None:
    with pytest.raises(tav_client.InvalidRequest, match="is not the address of a service"):
        TavClient(address)
