"""What `docs/http.md` says of errors is what the gateway answers."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidReference, NotFound, NotReady, StorageUnavailable
from services.api.http import errors
from tav.errors import TavError
from tests.api.conftest import Gateway

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```", TEXT, re.M | re.S)
TABLE = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \| ", TEXT, re.M)}
"""Every code with its status."""


def refusals() -> list[tuple[str, str, dict[str, Any]]]:
    """Return the page's requests that get a problem: head, body, and the problem."""
    found = []
    for request, response in itertools.pairwise(BLOCKS):
        if re.match(r"HTTP/1\.1 [45]\d\d", response):
            head, _, body = request.partition("\n\n")
            assert re.match(r"[A-Z]+ /", head), f"no request stands before {response!r}"
            found.append((head, body, json.loads(response.partition("\n\n")[2])))
    return found


@pytest.mark.parametrize(("head", "body", "problem"), refusals(), ids=[problem["code"] for _, _, problem in refusals()])
def test_a_refusal_that_the_page_quotes_is_the_one_that_comes(
    gateway: Gateway, head: str, body: str, problem: dict[str, Any]
) -> None:
    first, *headers = head.splitlines()
    method, path, _ = first.split()
    sent_headers = dict(line.split(": ", 1) for line in headers)
    answer = gateway.http.request(method, path, headers=sent_headers, content=body.strip().encode())
    assert answer.status_code == problem["status"]
    assert answer.json() == problem


def raised_codes() -> Iterator[tuple[str, int | None, str]]:
    """Yield the error codes in the gateway's sources, each with its status where it is a literal, and the file."""
    for path in sorted((ROOT / "services" / "api").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("ApiError", "unavailable"):
                values = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
                status, code = (503, values[0]) if node.func.id == "unavailable" else ([*values, None, None])[:2]
                if isinstance(code, str):
                    yield code, status if isinstance(status, int) else None, path.name


def test_every_code_that_the_gateway_gives_stands_in_the_table_with_its_status() -> None:
    codes = list(raised_codes())
    assert len(codes) > 20
    wrong = [(code, status, file) for code, status, file in codes if TABLE.get(code) != (status or TABLE.get(code))]
    assert wrong == [] and {code for code, _, _ in codes} <= TABLE.keys()


@pytest.mark.parametrize("kind", ["job", "batch", "model", "version", "alias", "video", "cursor"])
def test_what_is_not_there_is_told_by_a_code_of_the_table(kind: str) -> None:
    answer = errors.of_tav_error(NotFound(kind, "x"))
    assert TABLE[answer.code] == answer.status


@pytest.mark.parametrize("kind", [StorageUnavailable, NotReady, InvalidReference])
def test_what_the_registry_refuses_is_told_by_a_code_of_the_table(kind: type[TavError]) -> None:
    answer = errors.of_tav_error(kind("so"))
    assert TABLE[answer.code] == answer.status


def test_titles_are_the_statuses_own_words() -> None:
    for status in {*TABLE.values()}:
        title = errors._TITLES.get(status) or HTTPStatus(status).phrase
        assert title and title != "Unprocessable Entity"
