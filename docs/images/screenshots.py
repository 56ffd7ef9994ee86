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

from browser import NAMES, WIDTH, Pages, committed_project, opened, records, served  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Locator

BANKS = {"stage": "train_dgn", "dataset": "mnist"}
MARGIN = 24  # pixels below what a picture ends with
# The address asks for machine learning, but links leave the question out; a click makes it stay.
MODE = {"mlflow.workflowType_v1": '"machine_learning"'}


def main() -> None:
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
    widen(pages, "attributes.`Run Name`", 125)  # else most names are cut
    widen(pages, "attributes.`Dataset`", -160)
    widen(pages, "attributes.`Models`", 40)
    shoot(pages, "mlflow-runs", pages.page.locator(NAMES).last)


def comparison(pages: Pages, project: Path) -> None:
    """Two banks of one loss."""
    pages.to_runs(records(project, **BANKS), **BANKS)
    pages.to_comparison(["train_dgn@mnist-nce", "train_dgn@mnist-nce-ball"])
    pages.page.get_by_role("heading", name="Comparing").scroll_into_view_if_needed()
    pages.choose_axes("Parameters", ["train_dgn.mnist.nce.output"])
    pages.choose_axes("Metrics", ["class_0/loss", "class_0/mse"])
    shoot(pages, "mlflow-compare", pages.section("Run details"))


def curves(pages: Pages) -> None:
    """From there, one metric of both."""
    pages.to_curves("class_0/loss")
    shoot(pages, "mlflow-curves", pages.page.get_by_role("table"))


def model(pages: Pages) -> None:
    """A hardened network, with its card and its accuracies."""
    pages.to_model("mnist-robust-pgd")
    shoot(pages, "mlflow-model", pages.score_table())


def widen(pages: Pages, column: str, by: int) -> None:
    """Drags the right edge of a column of the table of runs."""
    edge = pages.page.locator(f".ag-header-cell[col-id='{column}'] > .ag-header-cell-resize")
    box = edge.bounding_box()
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
    box = last.bounding_box()
    assert box is not None
    path = HERE / f"{name}.png"
    height = box["y"] + box["height"] + MARGIN
    pages.shot(path, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    Image.open(path).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
