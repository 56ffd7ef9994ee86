"""A subject whose threat model is an L2 ball, from training to the table."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pipeline_fixtures import (
    DATASET,
    call_main,
    keep_rows,
    make_project,
    one_thread,
    set_params,
)

from deepcustom.base.params import read_params
from deepcustom.data.arrays import AdversarialSet
from deepcustom.data.sources import find_source
from deepcustom.evaluation.files import read_checks, read_points
from deepcustom.evaluation.results import read_csv
from deepcustom.pipeline import workspace
from deepcustom.pipeline.page import gather, page_text
from deepcustom.pipeline.workspace import Workspace

EPS, BANK = 2.0, "nce-ball"
STEPS = {"eps_step": 0.5}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Digits, attacked and hardened within 2.0 in L2."""
    ws = make_project(tmp_path_factory.mktemp("l2") / "project")
    keep_rows(ws.root, ("madry", "online"), (BANK, "pgd"))
    few = {"training": {"epochs": 3}}
    over = {
        "subjects": {DATASET: {"threat": {"norm": "l2", "eps": EPS}}},
        "train_dgn": {f"{DATASET}-{BANK}": few},
        "attack": {f"{DATASET}-pgd-test": STEPS},
        "adversarial_train": {
            f"{DATASET}-madry": few | {"inner": {"eps_step": 0.5, "max_iter": 2}}
        },
        "train_online": {f"{DATASET}-online": few | STEPS},
        "evaluate": {
            DATASET: {
                "n": 16,
                "whitebox": {"pgd": STEPS},
                "surrogate": STEPS,
                "curves": {"radii": [0, 1, 2]},
            }
        },
    }
    set_params(ws.root, over)
    stages = (
        ("train_target",),
        ("train_dgn", "--bank", BANK),
        ("generate", "--bank", BANK, "--split", "test"),
        ("attack", "--attack", "pgd", "--split", "test"),
        ("adversarial_train", "--network", "madry"),
        ("train_online", "--network", "online"),
        ("evaluate",),
        ("gallery",),
    )
    with one_thread():
        for words in stages:
            assert call_main(ws.root, *words, "--subject", DATASET) == 0, words
    return ws


@pytest.mark.parametrize("name", [BANK, "pgd"])
def test_sets_fill_the_ball_and_do_not_leave_it(project: Workspace, name: str) -> None:
    folder = project.root / workspace.adversarial(DATASET, "test", name)
    made = AdversarialSet.load(folder, find_source(DATASET).spec)
    clean = made.x.astype(np.float32) / np.float32(255)
    change = (made.x_adv.astype(np.float64) - clean).reshape(len(made), -1)
    lengths = np.sqrt((change**2).sum(1))
    assert lengths.max() <= EPS
    assert np.median(lengths) > 0.7 * EPS
    assert np.abs(change).max() > 0.1, "in L2 a pixel may change by more than the mean"


def test_the_table_and_the_checks_are_of_that_ball(project: Workspace) -> None:
    results = read_csv(project.root / workspace.results(DATASET))
    assert {one.protocol for one in results} == {
        "transfer",
        "whitebox",
        "blackbox",
        "adaptive",
        "worst",
    }
    checks = read_checks(project.root / workspace.checks(DATASET))
    assert {one.verdict for one in checks if one.name == "ball"} == {"ok"}
    points = read_points(project.root / workspace.curves(DATASET))
    radii = {point.eps for _, point in points if point.curve == "eps"}
    assert {0.0, EPS, 2 * EPS} <= radii
    assert radii - {0.0, EPS, 2 * EPS} <= {0.75 * 28}
    cell = {(one.network, one.attack): one.accuracy for one in results if one.protocol == "worst"}
    assert cell["target", "all"] < cell["target", "clean"]


def test_the_page_speaks_of_lengths(project: Workspace) -> None:
    text = page_text(project, "index")
    assert "change an image by at most eps = 2 in Euclidean length" in text
    assert "eps, Euclidean length of the change" in text
    assert "change of a pixel" not in text
    shown = gather(project, read_params(project.params), DATASET).gallery
    assert shown is not None
    assert 0.05 < shown.eps == shown.largest() < 1  # the scale on which a difference is drawn


def test_another_norm_is_another_ball(
    project: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images that L2 allows leave the ball of the same radius in the other norm, and the other way."""
    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy, symlinks=True)
    set_params(copy, {"subjects": {DATASET: {"threat": {"norm": "linf", "eps": 0.05}}}})
    with one_thread():
        assert call_main(copy, "evaluate", "--subject", DATASET) == 0
    checks = read_checks(copy / workspace.checks(DATASET))
    bad = {one.about for one in checks if one.name == "ball" and one.verdict == "fail"}
    assert bad == {f"{BANK} (set)", "pgd (set)"}
    capsys.readouterr()
    assert call_main(copy, "leaderboard") == 0
    assert "linf, eps = 0.05" in capsys.readouterr().out
    tree = yaml.safe_load((copy / "params.yaml").read_text())
    tree["subjects"][DATASET]["threat"] = {"norm": "l3", "eps": 1}
    (copy / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert call_main(copy, "evaluate", "--subject", DATASET) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "threat.norm" in line
    assert "'linf' or 'l2'" in line
