"""The results that are committed: complete, tied to dvc.lock, and what the project claims."""

from __future__ import annotations

import functools
import shutil

import networkx
import pytest
import yaml
from pipeline_fixtures import ROOT, Pipeline, resolve

from deepcustom.base import rows
from deepcustom.evaluation.files import read_checks
from deepcustom.evaluation.results import AUTOATTACK, PROTOCOLS, Result, read_csv
from deepcustom.pipeline import workspace
from deepcustom.pipeline.dvc import read_lock

SUBJECTS = ("mnist", "cifar10")
Cells = dict[tuple[str, str, str], Result]


def cells_of(subject: str) -> Cells:
    found = read_csv(ROOT / f"reports/results/{subject}.csv")
    assert {r.dataset for r in found} == {subject}
    return {(r.protocol, r.network, r.attack): r for r in found}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("resolved")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return resolve(folder)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_network_meets_every_attack(subject: str) -> None:
    cells = cells_of(subject)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    asked, names = rows.row(tree, "evaluate", subject).settings, rows.networks(tree, subject)
    sets = rows.adversarial_sets(tree, subject)
    wanted = [("transfer", n, a) for n in names for a in ["clean", *sets]]
    for n in names:
        more = ["apgd-t-more"] if ("whitebox", n, "apgd-t-more") in cells else []
        wanted += [("whitebox", n, a) for a in (*asked["whitebox"], "apgd-ce", "apgd-t", *more)]
        wanted += [("blackbox", n, f"from-{other}") for other in names if other != n]
        wanted += [("blackbox", n, "square"), ("adaptive", n, "dgn"), ("adaptive", n, "dgn-any")]
        protocols = [name for name in PROTOCOLS if name not in {AUTOATTACK, "worst"}]
        wanted += [("worst", n, a) for a in ("clean", *protocols, "all")]
    assert sorted(cells) == sorted(wanted)
    whole = {key for key in cells if key[0] == "transfer"}
    assert {cells[key].n for key in whole} == {10_000}
    assert {cells[key].n for key in cells.keys() - whole} == {1000}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_worst_case_is_below_every_column(subject: str) -> None:
    cells = cells_of(subject)
    for (protocol, network, _), result in cells.items():
        if protocol != "transfer":
            assert cells["worst", network, "all"].accuracy <= result.accuracy
        if protocol not in ("transfer", "worst"):
            assert cells["worst", network, protocol].accuracy <= result.accuracy


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_fails_a_check_is_known(subject: str) -> None:
    """Label leaks, and Square on MNIST; what fails of networks that learned by steps, by name."""
    failed = {
        (c.name, c.about)
        for c in read_checks(ROOT / workspace.checks(subject))
        if c.verdict == "fail"
    }
    known = {
        "mnist": {"label-leak", "label-in-perturbation", "square-not-stronger"},
        "cifar10": {"label-leak", "label-in-perturbation"},
    }
    assert {name for name, _ in failed} <= known[subject]
    assert ("label-leak", "nce") in failed
    on_mnist = {
        ("square-not-stronger", "madry"),
        ("square-not-stronger", "online"),
        ("label-leak", "online"),
    }
    learned_by_steps = {(name, about) for name, about in failed if about in ("madry", "online")}
    assert learned_by_steps == (on_mnist if subject == "mnist" else set())


@pytest.mark.parametrize("subject", SUBJECTS)
def test_hashes_are_those_of_the_lock(subject: str) -> None:
    """Every number names weights and images that DVC knows."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    known = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", ())}
    for (protocol, network, attack), result in cells_of(subject).items():
        weights = workspace.network(subject, network)
        clean = attack == "clean" or protocol != "transfer"
        split = workspace.split(subject, "test")
        images = split if clean else workspace.adversarial(subject, "test", attack)
        assert (result.network_md5, result.set_md5) == (known[weights], known[images])


# The study's figures, or better, where the study is followed: at least, at most.
AT_LEAST = {
    ("mnist", "target", "clean"): 0.9656,
    ("mnist", "lrp", "lrp"): 0.985,
    ("mnist", "nce", "nce"): 0.985,
    ("mnist", "suspiciousness", "suspiciousness"): 0.985,
    ("cifar10", "target", "clean"): 0.7075,
    ("cifar10", "lrp", "lrp"): 0.6427,
    ("cifar10", "nce", "nce"): 0.7692,
    ("cifar10", "suspiciousness", "suspiciousness"): 0.8765,
}
WORST_AT_LEAST = {
    ("mnist", "madry"): (0.67, 0.32),
    ("cifar10", "madry"): (0.0, 0.22),
    ("mnist", "online"): (0.76, 0.44),
    ("cifar10", "online"): (0.52, 0.25),
}
AT_MOST = {
    ("mnist", "target", "nce"): 0.02,
    ("mnist", "target", "lrp"): 0.25,
    ("mnist", "target", "suspiciousness"): 0.86,
    ("cifar10", "target", "nce-ball"): 0.20,
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_the_project_claims(subject: str) -> None:
    cells = cells_of(subject)
    for (of, network, attack), bound in AT_LEAST.items():
        if of == subject:
            assert cells["transfer", network, attack].accuracy >= bound, (network, attack)
    for (of, network, attack), bound in AT_MOST.items():
        if of == subject:
            assert cells["transfer", network, attack].accuracy <= bound, (network, attack)


@pytest.mark.parametrize(("subject", "network"), list(WORST_AT_LEAST))
def test_what_survives(subject: str, network: str) -> None:
    """Clean accuracy and the worst case over everything; the undefended target keeps nothing."""
    cells = cells_of(subject)
    clean, worst = WORST_AT_LEAST[subject, network]
    assert cells["worst", network, "clean"].accuracy >= clean
    assert cells["worst", network, "all"].accuracy >= worst
    assert cells["worst", "target", "all"].accuracy <= 0.01


def test_the_lock_knows_every_stage(pipeline: Pipeline) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == sorted(pipeline.instances)


def test_the_numbers_were_made_with_these_settings() -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in read_lock(ROOT).items():
        for key, used in stage["params"]["params.yaml"].items():
            now = functools.reduce(lambda tree, part: tree[part], key.split("."), settings)
            assert used == now, f"{name}: {key}: `dvc repro` makes them anew"


def test_the_docs_count_the_models() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    outs = [out for stage in lock.values() for out in stage.get("outs", ())]
    models = [out for out in outs if out["path"].startswith("models/")]
    size = round(sum(out["size"] for out in models) / 1e6)
    text = " ".join((ROOT / "docs/models.md").read_text().split())
    robust = sum("/robust/" in out["path"] for out in models)
    banks = sum(name.startswith("train_dgn@") for name in lock)
    assert (robust, banks, len(models)) == (18, 8, 2 + 8 + 18 + 2)
    assert "two targets, eight banks of generators, eighteen hardened networks" in text
    assert f"{len(models)} files, {size} MB" in text


def test_the_drawn_pipeline_is_the_real_one(pipeline: Pipeline) -> None:
    """The arrows in the docs are the pipeline's, less those that a longer way implies."""
    text = (ROOT / "docs/parameters.md").read_text()
    block = text.split("```mermaid\n")[1].split("```")[0]
    drawn = networkx.DiGraph()
    for line in block.splitlines()[1:]:
        sources, arrow, goals = line.partition(" --> ")
        assert arrow, line
        drawn.add_edges_from(
            (a.strip(), b.strip()) for a in sources.split("&") for b in goals.split("&")
        )
    stages = networkx.DiGraph()
    for one, other in pipeline.graph.edges:
        if one.partition("@")[0] != other.partition("@")[0]:
            stages.add_edge(one.partition("@")[0], other.partition("@")[0])
    assert set(drawn.edges) == set(networkx.transitive_reduction(stages).edges)
