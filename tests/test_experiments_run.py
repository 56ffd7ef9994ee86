"""Every experiment's script, run on real digits at tiny budgets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from pipeline_fixtures import DATASET, ROOT, keep_rows, make_project, one_thread, told_anew
from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.base import params
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import page
from deepcustom.stages import (
    adversarial_train,
    generate,
    relevance,
    suspiciousness,
    train_online,
    train_target,
)
from deepcustom.training.nets.mnist import MnistGenerator
from deepcustom.training.weights import load_tensors

BANK = "nce-ball"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Workspace:
    """A project with a bank that knows nothing, and what some stages make beside it."""
    ws = make_project(tmp_path_factory.mktemp("experiments") / "project")
    shutil.copy(empty_store, ws.root / "mlflow.db")
    keep_rows(ws.root, {BANK, "madry", "online"}, {BANK})
    torch.manual_seed(0)
    path = ws.root / workspace.bank(DATASET, BANK)
    path.parent.mkdir(parents=True)
    generators = [MnistGenerator().eval() for _ in range(10)]
    DGNBank(DATASET, "nce", "perturbation", generators).save(path)
    told_anew(ws, workspace.bank(DATASET, BANK))
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(ws.root)
        patch.setattr(page, "DPI", 40)
        train_target.run(ws, DATASET)
        relevance.run(ws, DATASET)
        suspiciousness.run(ws, DATASET)
        generate.run(ws, DATASET, BANK, "train")
        generate.run(ws, DATASET, BANK, "test")
        adversarial_train.run(ws, DATASET, BANK)
        adversarial_train.run(ws, DATASET, "madry")
        train_online.run(ws, DATASET, "online")
    return ws


@pytest.fixture
def stage(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[StageRun]:
    """What a script reads there."""
    monkeypatch.chdir(made.root)
    monkeypatch.syspath_prepend(ROOT / "docs/experiments")
    with one_thread(), import_module("project").reading(DATASET) as stage:
        yield stage


def weights(ws: Workspace, name: str) -> dict[str, Tensor]:
    return load_tensors(ws.root / workspace.robust(DATASET, name))[0]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", [BANK, "madry", "online"])
def test_hardening_with_the_projects_seed_gives_the_projects_network(
    made: Workspace, stage: StageRun, name: str
) -> None:
    """So another seed is all that differs in hardening_seeds.csv."""
    seeds = import_module("hardening_seeds")
    known = seeds.read_attackers(stage, meets=False)
    own = seeds.harden(stage, known, name, params.seed(stage.tree)).state_dict()
    assert same(own, weights(made, name))
    other = seeds.harden(stage, known, name, params.seed(stage.tree) + 1).state_dict()
    assert not same(other, weights(made, name))


def test_a_network_of_another_seed_meets_every_attack(stage: StageRun) -> None:
    seeds = import_module("hardening_seeds")
    known = seeds.read_attackers(stage)
    assert [*known.sets] == [BANK]
    assert [*known.surrogates] == ["target", BANK, "madry", "online"]
    net = seeds.harden(stage, known, seeds.FEWER, 1)
    found, left = seeds.worst_case(known, seeds.FEWER, net)
    assert len(left) == known.bed.params.n
    shares = [int(part.sum()) for part in (found.left("clean"), found.left("whitebox"), left)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0


def test_variants_of_the_ablation_take_the_gradients_that_they_say(stage: StageRun) -> None:
    ablation = import_module("online_ablation")
    bench = ablation.Bench(stage)
    inner, further = bench.madry.inner.max_iter, bench.online.max_iter
    wanted = {
        "pgd-7, steps of 0.3": inner + 1,
        "online": further + 2,
        "no generator": further + 2,
        "no step at all": 2,
        "loss lrp": further + 2,
    }
    for variant, gradients in wanted.items():
        row = bench.measure(variant, 1)
        assert (row.dataset, row.variant, row.gradients) == (DATASET, variant, gradients)
        assert 1 >= row.clean >= row.whitebox >= row.worst >= 0
        assert row.pgd >= row.whitebox


def test_a_bank_is_trained_with_the_budget_that_is_tried(
    stage: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = import_module("dgn_budget")
    tried = [budgets.Budget(name, 1e-3, 1) for name in ("control", "lrp", "suspiciousness")]
    kept = {one.loss: budgets.settings(stage, one) for one in tried}
    assert kept["control"].options["custom_loss_constant"] == 0
    assert kept["suspiciousness"].options["custom_loss_constant"] > 0
    assert {one.training.learning_rate for one in kept.values()} == {1e-3}
    monkeypatch.setattr(budgets, "BUDGETS", tried)
    found = budgets.curves(stage)
    assert [*found] == [budgets.OPTIMUM, *tried]
    assert {len(curve) for curve in found.values()} == {1}
    assert len(budgets.draw(found).axes) == 2


def test_more_epochs_on_a_fixed_set_are_more_epochs(stage: StageRun) -> None:
    few, many = (import_module("gf_epochs").measure(stage, BANK, epochs) for epochs in (1, 12))
    assert (few.network, few.epochs, many.epochs) == (BANK, 1, 12)
    assert few.val_accuracy < many.val_accuracy


def test_precisions_start_from_the_same_weights(stage: StageRun) -> None:
    precision = import_module("precision")
    compute = precision.with_precision(stage, "float32")
    target, bank = precision.measure(stage, 1, compute, "float32")
    assert (target.what, bank.what) == ("target", precision.BANK)
    assert precision.measure(stage, 1, compute, "float32") == [target, bank]


def test_each_budget_adapts_each_network(stage: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    adaptive = import_module("adaptive_budget")
    monkeypatch.setattr(adaptive, "NETWORKS", ("madry",))
    monkeypatch.setattr(adaptive, "BUDGETS", ((20, 1e-3),))
    rows = adaptive.measure(stage)
    assert [row[:4] for row in rows] == [("madry", 20, 1e-3, name) for name in ("dgn", "dgn-any")]


def test_both_libraries_meet_the_same_images(
    stage: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = import_module("apgd_libraries")
    monkeypatch.setattr(libraries, "IMAGES", 40)
    monkeypatch.setattr(libraries, "ITERATIONS", 3)
    art, authors = libraries.measure(stage, "ce")
    assert (art.library, authors.library) == ("ART", "pyautoattack")
    assert art.images == authors.images > 0
    for one in (art, authors):
        assert 0 <= one.accuracy_left <= 1
        assert one.gradients >= libraries.ITERATIONS
