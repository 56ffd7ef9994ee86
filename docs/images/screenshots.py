"""Takes the pictures of MLflow's pages anew, on the committed runs: ``python docs/images/screenshots.py``.

Needs what the tests of the pages need: ``make test-services`` installs it, or says what is missing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/services"))

from browser import (  # noqa: E402
    NAMES,
    WIDTH,
    ChromiumMissingError,
    Pages,
    chromium,
    committed_project,
    opened,
    records,
    served,
)

from deepcustom.tracking.runs import shown_params  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Locator

BANKS = {"stage": "train_dgn", "dataset": "mnist"}
# A table that would scroll, shown as high as it is.
WHOLE = """table => {
  for (let e = table, n = 0; n < 4; e = e.parentElement, n++)
    Object.assign(e.style, { height: 'auto', maxHeight: 'none' });
}"""
PAIR = ["train_dgn@mnist-nce", "train_dgn@mnist-nce-ball"]
MARGIN = 24  # pixels below what a picture ends with
# The address asks for machine learning, but links leave the question out; a click makes it stay.
MODE = {"mlflow.workflowType_v1": '"machine_learning"'}


def main() -> None:
    try:
        chromium()
    except ChromiumMissingError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        project = committed_project(Path(folder) / "project")
        with served(project) as address, opened(address, **MODE) as pages:
            runs(pages, project)
            comparison(pages, project)
            curves(pages)
            model(pages)
    for picture in sorted(HERE.glob("*.png")):
        print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")


def runs(pages: Pages, project: Path) -> None:
    """All runs on one data set."""
    pages.to_runs(records(project, dataset="mnist"), dataset="mnist")
    edge = ".ag-header-cell[col-id='attributes.`{}`'] > .ag-header-cell-resize"
    drag(pages, edge.format("Run Name"), 125)  # else most names are cut
    drag(pages, edge.format("Dataset"), -120)
    drag(pages, edge.format("Models"), 40)
    shoot(pages, "mlflow-runs", pages.page.locator(NAMES))


def comparison(pages: Pages, project: Path) -> None:
    """Two banks of one loss."""
    banks = records(project, **BANKS)
    pages.to_runs(banks, **BANKS)
    pages.to_comparison(PAIR)
    pages.page.get_by_role("heading", name="Comparing").scroll_into_view_if_needed()
    output = next(name for name in shown_params(banks[PAIR[0]]) if name.endswith(".output"))
    pages.choose_axes("Parameters", [output])
    pages.choose_axes("Metrics", ["class_0/loss", "class_0/mse"])
    pages.only_differences("Parameters")
    pages.page.get_by_role("heading", name="Comparing").scroll_into_view_if_needed()
    shoot(pages, "mlflow-compare", pages.section("Parameters").get_by_role("table"))


def curves(pages: Pages) -> None:
    """From there, one metric of both."""
    pages.to_curves("class_0/loss")
    shoot(pages, "mlflow-curves", pages.page.get_by_role("table"))


def model(pages: Pages) -> None:
    """A hardened network, with its card and its accuracies."""
    pages.to_model("mnist-robust-pgd")
    edge = (
        "[data-testid=logged-model-details-metrics-table] [role=columnheader]:has-text('{}') > div"
    )
    drag(pages, edge.format("Metric"), -70)
    drag(pages, edge.format("Dataset"), 210)
    pages.score_table().evaluate(WHOLE)
    shoot(pages, "mlflow-model", pages.score_table())


def drag(pages: Pages, edge: str, by: int) -> None:
    """Makes a column wider, or narrower, by its right edge."""
    box = pages.page.locator(edge).bounding_box()
    assert box is not None
    x, y = box["x"] + 1, box["y"] + box["height"] / 2
    mouse = pages.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + by, y, steps=20)  # one jump would be taken for a click
    mouse.up()


def shoot(pages: Pages, name: str, last: Locator) -> None:
    """A picture of the page down to ``last``, in few colours, for it is mostly white."""
    pages.page.wait_for_timeout(1000)  # milliseconds, for what fades in
    bottom = last.evaluate_all("all => Math.max(...all.map(e => e.getBoundingClientRect().bottom))")
    path = HERE / f"{name}.png"
    pages.shot(path, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + MARGIN})
    Image.open(path).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
