"""The documents are short where they promise it, and what they name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import tav
import tav_client

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "clients" / "python" / "README.md",
    ROOT / "tav" / "bases" / "offline" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCED = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
WRITTEN_BY_OPERATORS = {"deploy/settings.env"}
ROOMS = "tav|registry|services|clients|benchmarks|tools|tests|docs|deploy|examples"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> list[str]:
    """Return the lines outside code and tables, links without their targets."""
    text = re.sub(r"\]\([^)]*\)", "]", FENCED.sub("", page.read_text("utf-8")))
    return [line for line in text.splitlines() if not line.lstrip().startswith("|") and not line.startswith("    ")]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_is_short_enough_to_be_read_to_its_end() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 110] == []


def test_packages_and_the_list_of_changes_have_one_version() -> None:
    [version, *_] = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {version, project, tav.__version__, tav_client.__version__} == {version}


@every_page
def test_the_lines_of_a_page_are_not_too_long(page: Path) -> None:
    assert [line for line in prose(page) if len(line) > 120] == []


@every_page
def test_a_page_opens_with_a_paragraph_that_says_who_reads_it(page: Path) -> None:
    title, opening, *_ = page.read_text("utf-8").split("\n\n")
    assert title.startswith("# ") and "\n" not in title
    assert re.match(r"[A-Z]", opening) and len(opening.split()) >= 12, opening


@every_page
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text("utf-8"))):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            linked = (page.parent / name).resolve() if name else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@every_page
def test_files_and_modules_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    files = re.findall(rf"(?<![\w./-])(?:{ROOMS})/[\w./-]*[\w/]", text)
    modules = re.findall(rf"python -m ((?:{ROOMS})[\w.]*\w)", text)
    modules += [name.rpartition(".")[0] for name in re.findall(r"`(tools\.\w+(?:\.\w+)*)`", text)]
    assert [name for name in files if not (ROOT / name).exists() and name not in WRITTEN_BY_OPERATORS] == []
    places = [ROOT / name.replace(".", "/") for name in modules]
    assert [place for place in places if not place.is_dir() and not place.with_suffix(".py").exists()] == []
