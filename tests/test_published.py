"""The results that are committed: complete, tied to dvc.lock, and what the project claims."""

from __future__ import annotations

import shutil

import networkx
import pytest
import yaml
from pipeline_fixtures import ROOT, Pipeline, resolve

from deepcustom.pipeline import workspace
from deepcustom.results import Result, read_csv

OWN_ATTACKS = ("lrp", "nce", "suspiciousness")


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str, str], Result]:
    found = read_csv(ROOT / "reports/results/mnist.csv")
    return {(r.protocol, r.network, r.attack): r for r in found}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("resolved")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return resolve(folder)


def test_every_network_meets_every_attack(cells: dict[tuple[str, str, str], Result]) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["evaluate"]["mnist"]
    wanted = [("transfer", n, a) for n in params["networks"] for a in ["clean", *params["attacks"]]]
    wanted += [("whitebox", n, a) for n in params["networks"] for a in params["whitebox"]]
    assert sorted(cells) == sorted(wanted)
    assert {r.n for r in cells.values()} == {10_000}


def test_hashes_are_those_of_the_lock(cells: dict[tuple[str, str, str], Result]) -> None:
    """Every number names weights and images that DVC knows."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    known = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", ())}
    for (protocol, network, attack), result in cells.items():
        weights = workspace.network("mnist", network)
        clean = attack == "clean" or protocol == "whitebox"
        split = workspace.split("mnist", "test")
        images = split if clean else workspace.adversarial("mnist", "test", attack)
        assert (result.network_md5, result.set_md5) == (known[weights], known[images])


def test_what_the_project_claims(cells: dict[tuple[str, str, str], Result]) -> None:
    """The study's figures, or better, where the study is followed."""

    def transfer(network: str, attack: str) -> float:
        return cells["transfer", network, attack].accuracy

    assert transfer("target", "clean") >= 0.9656
    assert transfer("target", "nce") <= 0.02
    assert transfer("target", "lrp") <= 0.25
    assert transfer("target", "suspiciousness") <= 0.86
    for attack in OWN_ATTACKS:
        assert transfer(attack, attack) >= 0.985


def test_the_lock_knows_every_stage(pipeline: Pipeline) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == sorted(pipeline.instances)


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
