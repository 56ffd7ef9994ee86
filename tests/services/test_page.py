"""The page of a project in Chromium, opened from disk, as its readers use it; axe-core looks for barriers."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import PATIENCE, ROOT, chromium, without_mlflow

sys.path.insert(0, str(ROOT / "tests"))
from page_fixtures import small_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SOON = 120  # seconds
WIDTHS = {"desktop": 1280, "tablet": 800, "phone": 390}
INKS = """all => all.map(one => new Set(
  one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size)"""
"""How many values the pixels of each canvas have."""
DRAWN = """() => {
  const left = [...document.querySelectorAll('[data-chart]')].filter(
    one => !(one.dataset.drawn && one.querySelector('svg .mark-group')));
  left[0]?.scrollIntoView();
  return !left.length;
}"""
"""Whether all charts are drawn. A chart is drawn once it is looked at, so this goes to the next one."""
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a project with two subjects, one of which was not evaluated, as a file."""
    folder = small_project(tmp_path_factory.mktemp("page"))
    words = [sys.executable, "-m", "deepcustom.cli", "page"]
    subprocess.run(words, cwd=folder, env=without_mlflow(), check=True)
    return (folder / "reports/index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium(), timeout=PATIENCE, args=["--disable-gpu"]
        )
        yield found
        found.close()


@contextmanager
def reading(browser: Browser, address: str, **wanted: Any) -> Iterator[Page]:
    """The page, offline; fails where it said something on the console, or asked for anything."""
    context = browser.new_context(offline=True, service_workers="block", **wanted)
    context.set_default_timeout(1000 * SOON)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:90]}"))
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    page.goto(address)
    yield page
    assert problems == []
    own = (address, "data:", "blob:")
    assert [url for url in outside if not url.startswith(own)] == []
    context.close()


def until(page: Page, found: str, about: object = None) -> None:
    """Wait until JavaScript finds something.

    Playwright's own ``wait_for_function`` evaluates text inside the page, which the page's policy forbids.
    """
    end = time.monotonic() + SOON
    while not page.evaluate(found, about):
        assert time.monotonic() < end, found
        page.wait_for_timeout(50)


def look_at_all(page: Page) -> None:
    """Open every fold, and go down the page until each chart is drawn."""
    page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
    until(page, DRAWN)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_the_page_is_whole_fits_and_has_no_barriers(
    browser: Browser, address: str, width: int, theme: str
) -> None:
    size = {"width": width, "height": 900}
    with reading(browser, address, viewport=size, color_scheme=theme) as page:
        look_at_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 29)"}[theme]
        drawn = page.locator("[data-chart]").evaluate_all(
            "all => all.map(one => one.dataset.drawn)"
        )
        assert set(drawn) == {theme}
        # By evaluate: the page's own policy lets no script in, and should not.
        page.evaluate(resources.files("axe_core_python").joinpath("axe.min.js").read_text())
        found = page.evaluate("() => axe.run().then(one => one.violations)")
        grave = [
            (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in GRAVE
        ]
        assert grave == []


def test_a_number_opens_its_trace_and_the_keyboard_closes_it(
    browser: Browser, address: str
) -> None:
    with reading(browser, address) as page:
        number = page.locator("[data-trace='mnist/nce/worst/clean'] button")
        number.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        assert "mnist/nce/worst/clean" in dialog.get_by_role("heading", level=2).inner_text()
        assert "models/robust/mnist/nce.safetensors" in dialog.inner_text()
        dialog.get_by_text("made by adversarial_train@mnist-nce").click()
        dialog.get_by_text("SHA-256").first.wait_for()
        dialog.get_by_text("settings", exact=True).first.click()
        dialog.get_by_text("adversarial_train.mnist-nce.", exact=False).first.wait_for()
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert number.evaluate("one => one === document.activeElement")


def test_the_legend_dims_what_was_not_chosen(browser: Browser, address: str) -> None:
    with reading(browser, address) as page:
        chart = page.locator("[data-chart='mnist-eps-0']")
        chart.scroll_into_view_if_needed()
        legend = page.locator("[data-for='mnist-eps-0']").get_by_role("button", name="target")
        legend.click()
        assert legend.get_attribute("aria-pressed") == "true"
        until(page, "one => one.querySelector('path[opacity=\"0.12\"]')", chart.element_handle())
        legend.click()
        until(page, "one => !one.querySelector('path[opacity=\"0.12\"]')", chart.element_handle())


def test_the_gallery_leafs_by_attack_class_success_and_arrow_keys(
    browser: Browser, address: str
) -> None:
    with reading(browser, address) as page:
        box = page.locator("[data-gallery=mnist]")
        box.scroll_into_view_if_needed()
        where = box.get_by_role("status")
        until(page, "one => one.textContent.startsWith('1 of ')", where.element_handle())
        first = where.inner_text()
        box.get_by_role("button", name="Next").click()
        until(page, "one => one.textContent.startsWith('2 of ')", where.element_handle())
        page.keyboard.press("ArrowLeft")
        until(page, "one => one.textContent.startsWith('1 of ')", where.element_handle())
        assert where.inner_text() == first
        box.get_by_label("Success").select_option("the network fell")
        until(page, "one => one.textContent.startsWith('1 of ')", where.element_handle())
        assert "the network fell" in box.locator("[data-says=adversarial]").inner_text()
        inks = box.locator("canvas").evaluate_all(INKS)
        assert min(inks) > 2  # each canvas shows more than one flat colour


def test_a_table_downloads_as_csv(browser: Browser, address: str, tmp_path: Path) -> None:
    with reading(browser, address, accept_downloads=True) as page:
        with page.expect_download() as told:
            page.locator("#mnist-worst").get_by_role("button", name="Download as CSV").click()
        assert told.value.suggested_filename == "mnist-worst.csv"
        told.value.save_as(tmp_path / "table.csv")
        rows = list(csv.reader((tmp_path / "table.csv").open()))
        shown = page.locator("#mnist-worst tbody tr").count()
        assert rows[0][0] == "network"
        assert len(rows) == 1 + shown
        assert all(len(row) == len(rows[0]) for row in rows)


def test_the_switch_goes_over_the_systems_colours_and_is_remembered(
    browser: Browser, address: str
) -> None:
    with reading(browser, address, color_scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        for _ in range(2):
            page.get_by_role("button", name="Colours").click()
        assert page.evaluate(ground) != light
        page.reload()
        assert page.evaluate(ground) != light


def test_texts_and_tables_need_no_script(browser: Browser, address: str) -> None:
    with reading(browser, address, java_script_enabled=False) as page:
        assert page.locator("#mnist-worst tbody tr").count() > 1
        assert page.locator(".findings li").count() > 2
        text = page.content()
        assert "not evaluated" in text
        assert "dvc repro evaluate@" in text
