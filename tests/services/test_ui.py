"""What a reader sees of the runs: Chromium on the pages that ``deepcustom ui`` serves.

Once on the committed runs, sent to an empty store as after ``git clone``, and once on runs that
were made just now: the stages themselves, on a few hundred digits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import (
    HERE,
    WIDTH,
    ChromiumMissingError,
    Pages,
    chromium,
    committed_project,
    opened,
    records,
    served,
)
from pipeline_fixtures import (
    DATASET,
    environment,
    keep_rows,
    make_project,
    resolve,
    run_instance,
    set_params,
)

from deepcustom.evaluation.results import Result, read_csv
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking import store as tracking
from deepcustom.tracking.models import metric_name, set_name
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.runs import shown_params

pytestmark = pytest.mark.services

STORES = ["committed", "made-now"]
LISTENING = "0A"  # in /proc/net/tcp
NETWORK = "pgd"
BANKS = ("nce", "nce-ball")

# Enough to see all that the pages show of the whole pipeline, in a third of its time.
MADE = {
    *(f"train_target@{DATASET}", f"evaluate@{DATASET}"),
    *(f"train_dgn@{DATASET}-{bank}" for bank in BANKS),
    *(f"generate@{DATASET}-{bank}-test" for bank in BANKS),
    *(f"attack@{DATASET}-{name}" for name in ("fgsm-test", "pgd-test", "pgd-train")),
    f"adversarial_train@{DATASET}-{NETWORK}",
}
LITTLE = {
    "train_dgn": {f"{DATASET}-{bank}": {"training": {"epochs": 3}} for bank in BANKS},
}


@dataclass(frozen=True)
class Store:
    """A project whose runs are shown."""

    folder: Path
    address: str
    pages: Pages

    @property
    def port(self) -> int:
        """The server's."""
        return urlsplit(self.address).port or 0

    def records(self, **wanted: str) -> dict[str, RunRecord]:
        """The records with these fields, by the names of their runs."""
        return records(self.folder, **wanted)

    def results(self) -> list[Result]:
        """The rows of ``reports/results/mnist.csv`` on the hardened network that the tests read."""
        table = read_csv(self.folder / f"reports/results/{DATASET}.csv")
        return [result for result in table if result.network == NETWORK]


@pytest.fixture(scope="module")
def program() -> str:
    """Debian's Chromium; without it one line says so, for a skipped test would say nothing."""
    try:
        return chromium()
    except ChromiumMissingError as error:
        missing = str(error)
    pytest.fail(missing, pytrace=False)


@pytest.fixture(scope="module", params=STORES)
def store(
    request: pytest.FixtureRequest, program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("ui") / "project"
    if request.param == "committed":
        committed_project(folder)
    else:
        made_now(folder)
    with served(folder) as address, opened(address) as pages:
        yield Store(folder, address, pages)


def made_now(folder: Path) -> None:
    """Runs stages on a few hundred digits: two banks, a hardened network, and their evaluation."""
    make_project(folder)
    set_params(folder, LITTLE)
    keep_rows(folder, ["target", NETWORK], [*BANKS, "fgsm", "pgd"])
    unset = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"))
    with environment(**unset, **tracking.PATIENCE):
        for one in resolve(folder).instances.values():
            if one.name in MADE:
                run_instance(Workspace(folder), one)


@pytest.fixture(scope="module")
def album(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the pictures go."""
    given = os.environ.get("DEEPCUSTOM_ARTIFACTS")
    folder = Path(given) / "ui" if given else tmp_path_factory.mktemp("pages")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"\nscreenshots: {folder}")


@pytest.fixture
def pages(store: Store, album: Path, request: pytest.FixtureRequest) -> Iterator[Pages]:
    """The browser; each test leaves a picture of the page on which it ended."""
    # Where the server has gone, each wait for a page would take its two minutes.
    socket.create_connection((HERE, store.port), timeout=10).close()
    pages = store.pages
    yield pages
    name = request.node.name.removeprefix("test_")
    pages.shot(album / f"{name}.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": 1600})


def same(text: str, value: float) -> bool:
    """Whether ``text`` is ``value``, to as many digits as MLflow shows."""
    least = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1  # after the point, zeros dropped
    digits = max(least, len(text.partition(".")[2]))
    return abs(float(text) - value) <= 0.5001 * 10**-digits


def test_address_opens_the_table_of_runs(store: Store, pages: Pages) -> None:
    wanted = store.records()
    pages.to_runs(wanted)
    assert sorted(pages.names_of_runs()) == sorted(wanted)


def test_runs_are_found_by_the_tag_of_their_stage(store: Store, pages: Pages) -> None:
    wanted = store.records(stage="train_dgn")
    pages.to_runs(wanted, stage="train_dgn")
    assert sorted(pages.names_of_runs()) == sorted(wanted)


def test_comparison_shows_params_and_curves_of_both_runs(store: Store, pages: Pages) -> None:
    both = {"stage": "train_dgn", "dataset": DATASET}
    banks = store.records(**both)
    names = [f"train_dgn@{DATASET}-{bank}" for bank in BANKS]
    compared = [banks[name] for name in names]
    pages.to_runs(banks, **both)
    pages.to_comparison(names)
    assert pages.compared("Run details")["Run Name:"] == names

    params = [shown_params(record) for record in compared]
    wanted = {key: [one.get(key, "") for one in params] for key in sorted({*params[0], *params[1]})}
    assert pages.compared("Parameters") == wanted
    pages.only_differences("Parameters")
    different = {key: values for key, values in wanted.items() if values[0] != values[1]}
    assert pages.compared("Parameters") == different
    outputs = {value for key in different if key.endswith("output") for value in different[key]}
    assert {"image", "perturbation"} <= outputs

    metrics = pages.compared("Metrics")
    assert len(metrics) > 4
    for metric, texts in metrics.items():
        for text, record in zip(texts, compared, strict=True):
            assert same(text, record.metrics[metric]), metric
    assert metrics.keys() & set(pages.axes()), "no metric has an axis in the chart"

    metric = "class_0/loss"
    assert metric in metrics
    pages.to_curves(metric)
    curves = pages.curves()
    assert sorted(curves) == sorted(names)
    for record in compared:
        history = record.history[metric]
        assert curves[record.name] == (list(range(1, len(history) + 1)), pytest.approx(history))


def test_model_shows_its_accuracy_against_every_attack(store: Store, pages: Pages) -> None:
    pages.to_model(f"{DATASET}-robust-{NETWORK}")
    results = {
        (metric_name(result), f"{set_name(result)} (#{result.set_md5})"): result.accuracy
        for result in store.results()
    }
    assert len(results) == len(store.results()) > 5
    rows = pages.scores()
    assert sorted((row["Metric"], row["Dataset"]) for row in rows) == sorted(results)
    for row in rows:
        assert same(row["Value"], results[row["Metric"], row["Dataset"]]), row
        assert row["Source run"] == f"evaluate@{DATASET}"


@pytest.mark.parametrize("store", ["committed"], indirect=True)
def test_model_is_described_by_its_card(store: Store, pages: Pages) -> None:
    pages.to_model(f"{DATASET}-robust-{NETWORK}")
    card = (store.folder / f"reports/cards/{DATASET}/robust-{NETWORK}.md").read_text()
    title = card.splitlines()[0].removeprefix("# ")
    assert pages.page.get_by_role("heading", name=title).is_visible()


def test_registry_shows_what_is_current(store: Store, pages: Pages) -> None:
    name = f"{DATASET}-robust-{NETWORK}"
    pages.to_registry(name)
    (row,) = [row for row in pages.table() if row["Name"] == name]
    assert "".join(row["Aliased versions"].split()) == "@current:Version1"
    pages.to_registered(name)
    (version,) = pages.table()
    assert version["Version"] == "Version 1"
    assert version["Aliases"].split() == ["@", "current"]
    record = store.records(stage="adversarial_train")[f"adversarial_train@{DATASET}-{NETWORK}"]
    assert record.outputs[f"models/robust/{DATASET}/{NETWORK}.safetensors"] in version["Tags"]


@pytest.mark.parametrize("store", ["made-now"], indirect=True)
def test_figures_of_a_run_are_shown(store: Store, pages: Pages) -> None:
    pages.to_runs(store.records(stage="train_target"), stage="train_target")
    pages.to_figure(f"train_target@{DATASET}", "curves.png")


def test_no_page_has_errors_of_ours_or_needs_another_machine(store: Store, pages: Pages) -> None:
    """Whatever the tests above opened; what they asked for elsewhere was refused."""
    pages.to_runs(store.records())
    print("refused:", *sorted(pages.elsewhere))
    assert pages.problems == []


def test_server_listens_on_this_machine_alone(store: Store) -> None:
    assert urlsplit(store.address).hostname == HERE
    local = [
        line.split()[1].split(":")
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if line.split()[3] == LISTENING
    ]
    where = {host for host, at in local if int(at, 16) == store.port}
    assert where == {bytes(reversed(bytes(map(int, HERE.split("."))))).hex().upper()}


def test_without_chromium_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChromiumMissingError, match=r"^[^\n]*apt-get install chromium$"):
        chromium()
