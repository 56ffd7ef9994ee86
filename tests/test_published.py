"""The results that are committed: complete, tied to dvc.lock, and what the project claims."""

from __future__ import annotations

import functools
import shutil

import networkx
import pytest
import yaml
from pipeline_fixtures import ROOT, Pipeline, resolve

from deepcustom.pipeline import workspace
from deepcustom.results import Result, read_csv

DATASETS = ("mnist", "cifar10")
Cells = dict[tuple[str, str, str], Result]


def cells_of(dataset: str) -> Cells:
    found = read_csv(ROOT / f"reports/results/{dataset}.csv")
    assert {r.dataset for r in found} == {dataset}
    return {(r.protocol, r.network, r.attack): r for r in found}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("resolved")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return resolve(folder)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_network_meets_every_attack(dataset: str) -> None:
    cells = cells_of(dataset)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["evaluate"][dataset]
    wanted = [("transfer", n, a) for n in params["networks"] for a in ["clean", *params["attacks"]]]
    wanted += [("whitebox", n, a) for n in params["networks"] for a in params["whitebox"]]
    assert sorted(cells) == sorted(wanted)
    assert {r.n for r in cells.values()} == {10_000}


@pytest.mark.parametrize("dataset", DATASETS)
def test_hashes_are_those_of_the_lock(dataset: str) -> None:
    """Every number names weights and images that DVC knows."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    known = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", ())}
    for (protocol, network, attack), result in cells_of(dataset).items():
        weights = workspace.network(dataset, network)
        clean = attack == "clean" or protocol == "whitebox"
        split = workspace.split(dataset, "test")
        images = split if clean else workspace.adversarial(dataset, "test", attack)
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
AT_MOST = {
    ("mnist", "target", "nce"): 0.02,
    ("mnist", "target", "lrp"): 0.25,
    ("mnist", "target", "suspiciousness"): 0.86,
    ("cifar10", "target", "nce-ball"): 0.20,
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_the_project_claims(dataset: str) -> None:
    cells = cells_of(dataset)
    for (of, network, attack), bound in AT_LEAST.items():
        if of == dataset:
            assert cells["transfer", network, attack].accuracy >= bound, (network, attack)
    for (of, network, attack), bound in AT_MOST.items():
        if of == dataset:
            assert cells["transfer", network, attack].accuracy <= bound, (network, attack)


def test_the_lock_knows_every_stage(pipeline: Pipeline) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == sorted(pipeline.instances)


def test_the_numbers_were_made_with_these_settings() -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    for name, stage in lock.items():
        for key, used in stage["params"]["params.yaml"].items():
            now = functools.reduce(lambda tree, part: tree[part], key.split("."), settings)
            assert used == now, f"{name}: {key}: `dvc repro` makes them anew"


def test_the_drawn_pipeline_is_the_real_one(pipeline: Pipeline) -> None:
    """The README's arrows are the pipeline's, less those that a longer way implies."""
    text = (ROOT / "README.md").read_text()
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
