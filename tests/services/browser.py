"""A headless Chromium on the pages that ``deepcustom ui`` serves, used as a reader would use it.

What finds its way through MLflow's pages is here alone, for the tests and for the pictures of the
documentation (docs/images/screenshots.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deepcustom.tracking.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, Route

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("deepcustom")
NO_CHROMIUM = "the tests of MLflow's pages need Debian's Chromium: apt-get install chromium"
HERE = "127.0.0.1"
WIDTH, HEIGHT = 1400, 3600  # MLflow draws the rows that are in sight alone: room for a hundred
PATIENCE = 120_000  # milliseconds; a page takes two seconds, and on a machine that trains a minute
STOP_SECONDS = 20.0

# MLflow opens its assistant beside the first page that a browser sees.
REMEMBERED = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
REMEMBER = (
    "if (location.hostname) for (const [k, v] of Object.entries(%s)) localStorage.setItem(k, v)"
)

# What MLflow 3 says about itself: it asks for accounts where there are none, and draws twice.
OWN_NOISE = ("/mlflow/users/current", "ResizeObserver loop")

NAMES = ".ag-row [col-id='attributes.`Run Name`']"
CHANGED = "([cells, before]) => document.querySelectorAll(cells).length !== before"
ROWS = "table => [...table.querySelectorAll('tr')].map(row => [...row.cells].map(c => c.innerText))"
CELLS = """table => [...table.querySelectorAll('[role=row]')].map(
  row => [...row.querySelectorAll('[role=cell], [role=columnheader]')].map(c => c.innerText))"""
DRAWN = """() => {
  const chart = document.querySelector('.js-plotly-plot');
  return chart && chart.data && chart.querySelectorAll('.scatterlayer .js-line').length > 0;
}"""
CURVES = "chart => chart.data.map(one => [one.name, [...one.x], [...one.y]])"
LOADED = (
    "() => [...document.images].some(one => one.src.startsWith('blob:') && one.naturalWidth > 99)"
)
GRID = """grid => [...grid.querySelectorAll('.ReactVirtualized__Grid__innerScrollContainer > *')]
  .map(cell => [parseInt(cell.style.top), parseInt(cell.style.left), cell.innerText])"""


class ChromiumMissingError(Exception):
    """There is no Chromium; the message says how to get one."""


def chromium() -> str:
    """Debian's own: Playwright would fetch one of its own from a server that is not a registry.

    Raises:
        ChromiumMissingError: It is not installed.
    """
    found = shutil.which("chromium")
    if found is None:
        raise ChromiumMissingError(NO_CHROMIUM)
    return found


def without_mlflow() -> dict[str, str]:
    """The environment of somebody who has set nothing for MLflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def committed_project(folder: Path) -> Path:
    """What a clone has of the runs, in ``folder``, and a store that ``runs sync`` made from it."""
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    not_in_git = shutil.ignore_patterns("*.png")
    for name in ("runs", "results", "cards"):
        shutil.copytree(ROOT / "reports" / name, folder / "reports" / name, ignore=not_in_git)
    subprocess.run(
        [PROGRAM, "runs", "sync"],
        cwd=folder,
        env=without_mlflow(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


def records(project: Path, **wanted: str) -> dict[str, RunRecord]:
    """The records of a project by the names of their runs: all, or those with these fields."""
    found = [RunRecord.read(path.parent) for path in (project / "reports/runs").rglob(RUN_FILE)]
    return {
        record.name: record
        for record in found
        if all(getattr(record, field) == value for field, value in wanted.items())
    }


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """``deepcustom ui`` in ``folder``, as ``make ui`` calls it; gives the address that it prints.

    The port alone is another: from 5000 on, it may meet a server that somebody else starts.
    """
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [PROGRAM, "ui", "--profile", "default", "--port", str(port)],
        cwd=folder,
        env=without_mlflow(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"MLflow: http://{HERE}:{port}/"), f"deepcustom ui said {line!r}"
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def opened(address: str, **remembered: str) -> Iterator[Pages]:
    """A browser that knows no other machine than this one, for the server at ``address``.

    Args:
        address: What ``deepcustom ui`` printed.
        remembered: What the browser has in its storage for that server, besides ``REMEMBERED``.

    Raises:
        ChromiumMissingError: There is no Chromium.
    """
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            timeout=PATIENCE,
            # The route below does not see what workers ask for.
            args=[f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HERE}", "--disable-gpu"],
        )
        try:
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT},
                locale="en-US",
                timezone_id="UTC",
                service_workers="block",
            )
            context.add_init_script(REMEMBER % json.dumps(REMEMBERED | remembered))
            context.set_default_timeout(PATIENCE)
            yield Pages(context.new_page(), address)
        finally:
            browser.close()


class Pages:
    """MLflow's pages, read and clicked.

    Attributes:
        page: Playwright's.
        problems: What went wrong on any page so far: messages, exceptions, answers.
        elsewhere: Addresses on other machines that a page asked for, in vain.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.problems: list[str] = []
        self.elsewhere: set[str] = set()
        page.context.route(lambda url: urlsplit(url).hostname != HERE, self._refuse)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._note(f"exception: {error}"))
        page.on("response", lambda r: self._note(f"{r.status} {r.url}") if r.status >= 400 else ())
        # MLflow advertises its registry over the registry.
        dialog = page.get_by_role("dialog").get_by_role("button", name="Close")
        page.add_locator_handler(dialog, lambda close: close.click())

    def to_runs(self, wanted: Mapping[str, RunRecord], **tags: str) -> None:
        """The table of runs at the printed address, once it has what is ``wanted``, all unfolded.

        MLflow counts, and shows folded, the runs that stand for a ``dvc repro`` of what is found.

        Args:
            wanted: The records with these tags.
            tags: What to look for, such as ``stage="train_dgn"``; nothing finds all.
        """
        repros = {record.repro for record in wanted.values()} - {None}
        count = len(wanted) + len(repros)
        self.page.goto(self.address)
        box = self.page.get_by_test_id("search-box")
        box.fill(" and ".join(f"tags.deepcustom.{tag} = '{tags[tag]}'" for tag in tags))
        box.press("Enter")
        noun = "run" if count == 1 else "runs"
        self.page.get_by_text(f"{count} matching {noun}", exact=True).wait_for()
        self.page.locator(NAMES).first.wait_for()
        for _ in range(20):  # the count may be new while the rows are still those of before
            self._unfold()
            if sorted(self.names_of_runs()) == sorted(wanted):
                return
            self.page.wait_for_timeout(1000)

    def _unfold(self) -> None:
        """Show the runs of every ``dvc repro`` in the table of runs."""
        names = self.page.locator(NAMES)
        for button in names.get_by_role("button").all():
            before = names.count()
            if self._clicked(button, before) < before:  # it was unfolded
                self._clicked(button, names.count())

    def names_of_runs(self) -> list[str]:
        """All but those that stand for a ``dvc repro``."""
        names = self.page.locator(NAMES).get_by_role("link").all_inner_texts()
        return [name for name in names if not name.startswith("repro ")]

    def to_figure(self, run: str, figure: str) -> None:
        """From the table of runs to one picture among a run's files."""
        self.page.get_by_role("link", name=run, exact=True).click()
        self.page.get_by_text("Artifacts", exact=True).first.click()
        self.page.get_by_text("figures", exact=True).click()
        self.page.get_by_text(figure, exact=True).click()
        self.page.wait_for_function(LOADED)

    def to_comparison(self, names: list[str]) -> None:
        """Ticks runs of the table, and goes to the page that compares them."""
        for name in names:
            link = self.page.get_by_role("link", name=name, exact=True)
            self.page.locator(".ag-row", has=link).get_by_role("checkbox").first.check()
        self.page.get_by_role("button", name="Compare", exact=True).click()
        self.page.get_by_role("heading", name=f"Comparing {len(names)} Runs").wait_for()
        self.page.locator(".js-plotly-plot .parcoords").first.wait_for(state="attached")

    def only_differences(self, section: str) -> None:
        """Hides in Parameters, Metrics or Tags what the runs have in common."""
        switch = self.page.get_by_role("switch", name=f"{section} - Show diff only")
        if switch.get_attribute("aria-checked") != "true":
            switch.click()

    def compared(self, section: str) -> dict[str, list[str]]:
        """Name to a value for each run; empty where a run has none."""
        if section == "Metrics":  # two grids beside each other: names, and values
            names, values = map(self._grid, self.page.get_by_role("grid").all())
            return {name: values[at] for at, (name,) in names.items()}
        table = self.section(section).locator("table")
        return {name: values for name, *values in table.evaluate(ROWS)}

    def choose_axes(self, kind: str, names: list[str]) -> None:
        """Has the chart of the comparison show these ``Parameters`` or ``Metrics`` and no others."""
        field = self.page.get_by_text(f"{kind}:", exact=True).locator(
            "xpath=following-sibling::*[1]"
        )
        chosen = field.locator(".du-bois-light-select-selection-item-remove")
        while chosen.count():
            chosen.first.click()
        box = field.get_by_role("combobox")
        box.click(force=True)  # what is chosen lies above it
        for name in names:
            box.fill(name, force=True)  # of a long list the page makes only what is in view
            self.page.locator(f".du-bois-light-select-item-option[title='{name}']").click()
        self.page.keyboard.press("Escape")

    def axes(self) -> list[str]:
        """What the chart of the comparison has an axis for."""
        return self.page.locator(".js-plotly-plot .axis-title").all_text_contents()

    def to_curves(self, metric: str) -> None:
        """From the comparison to the curves of one metric."""
        self.page.get_by_role("link", name=metric, exact=True).click()
        self.page.get_by_role("heading", name=metric).first.wait_for()
        self.page.wait_for_function(DRAWN)

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Run to the steps and values that are drawn."""
        chart = self.page.locator(".js-plotly-plot").first
        return {name: (x, y) for name, x, y in chart.evaluate(CURVES)}

    def to_model(self, name: str) -> None:
        """From the printed address to the page of a model."""
        self.page.goto(self.address)
        self.page.get_by_role("link", name="Models", exact=True).first.click()
        self.page.get_by_role("link", name=name, exact=True).first.click()
        self.page.get_by_role("heading", name=name, exact=True).wait_for()
        self.score_table().get_by_role("link", name="evaluate@").first.wait_for()  # comes last

    def scores(self) -> list[dict[str, str]]:
        """The rows of a model's table of metrics, by the heads of its columns."""
        return self._by_head(self.score_table())

    def to_registry(self, name: str) -> None:
        """From the printed address to the table of registered models, once ``name`` is in it."""
        self.page.goto(self.address)
        self.page.get_by_role("link", name="Model registry").click()
        self.page.get_by_role("heading", name="Registered Models").wait_for()
        search = self.page.get_by_test_id("model-search-input")  # one page holds 25 names
        search.fill(name)
        search.press("Enter")
        self.page.get_by_role("link", name=name, exact=True).wait_for()

    def to_registered(self, name: str) -> None:
        """From the registry to the versions of one model."""
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("columnheader", name="Aliases").wait_for()
        self.page.get_by_role("link", name="Version 1", exact=True).wait_for()

    def table(self) -> list[dict[str, str]]:
        """The rows of the page's only table, by the heads of its columns."""
        return self._by_head(self.page.get_by_role("table"))

    def section(self, name: str) -> Locator:
        """A part of the comparison."""
        head = self.page.get_by_role("button", name=name, exact=True)
        return self.page.locator(".du-bois-light-collapse-item", has=head)

    def score_table(self) -> Locator:
        """A model's table of metrics."""
        return self.page.get_by_test_id("logged-model-details-metrics-table")

    def shot(self, path: Path, **options: Any) -> None:
        """A picture, without the button that floats over every page and the mark of the last click."""
        self.page.evaluate("() => document.activeElement.blur()")
        floating = self.page.get_by_role("button", name="MLflow Assistant")
        for button in floating.all():
            button.evaluate("button => { button.style.visibility = 'hidden' }")
        self.page.mouse.move(0, 0)  # what lies below the pointer lights up
        self.page.screenshot(path=path, **options)

    def _clicked(self, button: Locator, rows: int) -> int:
        """How many rows the table of runs has once a click has made them other than ``rows``."""
        button.click()
        self.page.wait_for_function(CHANGED, arg=[NAMES, rows])
        return self.page.locator(NAMES).count()

    def _grid(self, grid: Locator) -> dict[int, list[str]]:
        """Distance from the top to the cells of a row, from the left."""
        rows: dict[int, list[str]] = {}
        for top, _left, text in sorted(grid.evaluate(GRID)):
            rows.setdefault(top, []).append(text)
        return rows

    def _by_head(self, table: Locator) -> list[dict[str, str]]:
        head, *rows = table.evaluate(CELLS)
        return [dict(zip(head, row, strict=True)) for row in rows]

    def _refuse(self, route: Route) -> None:
        self.elsewhere.add(route.request.url)
        route.abort()

    def _heard(self, message: ConsoleMessage) -> None:
        where = message.location["url"]
        if message.type == "error" and urlsplit(where).hostname in (HERE, None):
            self._note(f"console: {message.text} ({where})")

    def _note(self, problem: str) -> None:
        if not any(noise in problem for noise in OWN_NOISE):
            self.problems.append(problem)
