"""The page at /docs, in a browser that reaches nothing but the gateway."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

from services.api.keys import KeyFile, make_key
from services.settings import Settings
from tests.api.conftest import Gateway

pytestmark = pytest.mark.slow


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page of a headless Chromium."""
    program = shutil.which("chromium")
    assert program, "there is no Chromium: run tools/system-packages.sh python3 browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


def test_the_docs_page_works_without_the_internet_and_calls_with_the_key_that_it_is_given(
    page: Page, start_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    key, record = make_key("first")
    place = str(tmp_path / "keys.json")
    KeyFile(place, Settings()).write({record.id: record})
    root, elsewhere = str(start_gateway(api_keys_file=place).http.base_url).rstrip("/"), []

    def only_ours(route: Route) -> None:
        if route.request.url.startswith((f"{root}/", "data:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", only_ours)
    page.goto(f"{root}/docs")
    expect(page.locator("#operations-models-list_models")).to_be_visible(timeout=60_000)
    assert elsewhere == []
    operation = page.locator("#operations-models-list_models")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("401")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(key)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
