"""Scoring networks: which pieces a change makes anew, and that pieces from the store change no byte."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import budgets
import numpy as np
import pytest
import torch
from engines import OneByOne
from torch import nn

from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import silent
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.sources import find_source
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import checks_json, rows_csv
from deepcustom.evaluation.material import Lazy
from deepcustom.evaluation.results import csv_text
from deepcustom.evaluation.score_store import Pieces, ScoreStore, forget
from deepcustom.evaluation.scoring import Scores, ScoringInputs, Testbed, quick_rows, score
from deepcustom.evaluation.sets import StoredSet
from deepcustom.evaluation.transfer import Network
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.mnist import MnistGenerator

MNIST = find_source("mnist").spec
PGD = budgets.attack(method="pgd", eps_step=0.02, max_iter=3, num_random_init=1).model_dump()
TRAINING = budgets.training(learning_rate=1e-3, epochs=1, batch_size=8)
SETTINGS: dict[str, Any] = {
    "n": 16,
    "whitebox": {"fgsm": budgets.attack(method="fgsm").model_dump(), "pgd": PGD},
    "surrogate": PGD,
    "autoattack": budgets.autoattack(max_iter=3, targets=2, queries=10).model_dump(),
    "adaptive": budgets.adaptive(bank="nce", training=TRAINING).model_dump(exclude_none=True)
    | {"images_per_class": None},
    "curves": {"n": 8, "radii": [0, 1], "steps": [1, 3]},
}
WHITEBOX = {"fgsm", "pgd", "apgd-ce", "apgd-t"}
CHECKS = {"deterministic", "same-with-gradient", "logits", "gradients", "noise", "doubled"}
EVERY = WHITEBOX | CHECKS | {"from", "square", "dgn", "dgn-any", "curves", "images"}
# What follows what the attacks before it left.
SERIES = {"apgd-ce", "apgd-t", "doubled", "apgd-t-more"}


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = overlaid(out.get(key, {}), value) if isinstance(value, Mapping) else value
    return out


@dataclass(frozen=True)
class Bench:
    """Networks and images to score them on."""

    split: Split
    made: AdversarialSet
    nets: Mapping[str, nn.Module]
    bank: DGNBank
    train: tuple[torch.Tensor, torch.Tensor]

    def inputs(
        self,
        over: Mapping[str, Any] | None = None,
        *,
        eps: float = 0.06,
        seed: int = 3,
        names: tuple[str, ...] = ("target", "other"),
        sets: tuple[str, ...] = ("fgsm",),
        bank_md5: str = "b",
    ) -> ScoringInputs:
        bed = Testbed.of(
            self.split,
            "5" * 32,
            subject="mnist",
            classes=MNIST.classes,
            params=EvaluateParams.model_validate(overlaid(SETTINGS, over or {})),
            threat=ThreatModel(eps),
            compute=FLOAT32,
            seed=seed,
        )
        return ScoringInputs(
            bed,
            [Network(name, name.ljust(32, "0"), self.nets[name]) for name in names],
            [StoredSet(name, "f" * 32, self.made) for name in sets],
            Lazy({"bank": bank_md5, "train": "t"}, lambda: (self.bank, self.train)),
        )


@pytest.fixture(scope="module")
def bench(trained: nn.Module, digits: Split, train: Any) -> Bench:
    def shifted(by: float) -> nn.Module:
        net = copy.deepcopy(trained)
        generator = torch.Generator().manual_seed(int(1000 * by))
        for weight in net.parameters():
            weight.data += by * weight.std() * torch.randn(weight.shape, generator=generator)
        return net

    split = digits.take(np.arange(1000, 1080))
    x_adv = (split.x / np.float32(255)).clip(0.01, 0.95).astype(np.float32)
    made = AdversarialSet(split.x, x_adv, split.y, split.index)
    bank = []
    for label in range(10):
        torch.manual_seed(label)
        bank.append(ready(MnistGenerator(), torch.device("cpu")))
    named = {"target": copy.deepcopy(trained), "other": shifted(0.05), "new": shifted(0.1)}
    some = train[0][:40], train[1][:40]
    return Bench(split, made, named, DGNBank("mnist", "nce", "perturbation", bank), some)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(network, piece) of every piece that is made from now on."""
    found: list[tuple[str, str]] = []
    real = Pieces._piece

    def watched(self: Pieces, what: str, piece: Mapping[str, Any], make: Any, form: Any) -> Any:
        before = self.made
        result = real(self, what, piece, make, form)
        name = piece.get("attack") or piece.get("check") or next(iter(piece))
        if self.made > before:
            found.append((self.victim.name, name))
        return result

    monkeypatch.setattr(Pieces, "_piece", watched)
    return found


def store(folder: Path | None, run: str = "evaluate", **basis: str) -> ScoreStore:
    return ScoreStore(folder, {"code": "c", **basis}, run)


def files(found: Scores) -> tuple[str, ...]:
    return (
        csv_text(found.results),
        checks_json(found.checks),
        rows_csv(["network"], [((name,), point) for name, point in found.points]),
        rows_csv([], [((), pair) for pair in found.pairs]),
    )


def kinds(made: list[tuple[str, str]]) -> set[str]:
    return {"from" if name.startswith("from-") else name for _, name in made}


@pytest.fixture(scope="module")
def whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scores]:
    """A full store, and the scores that filled it."""
    folder = tmp_path_factory.mktemp("kept") / "scores"
    return folder, score(bench.inputs(), store(folder))


@pytest.fixture
def full(whole: tuple[Path, Scores], tmp_path: Path) -> Path:
    """A copy of the full store, to change at will."""
    return Path(shutil.copytree(whole[0], tmp_path / "scores"))


def pieces_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_images_that_are_listed_by_class_are_attacked_in_a_drawn_order(bench: Bench) -> None:
    """Curves and some checks take the first of them."""
    order = np.argsort(bench.split.y, kind="stable")
    listed = Split(bench.split.x[order], bench.split.y[order], bench.split.index)
    few = {"n": 60, "curves": {"n": 20}}
    bed = replace(bench, split=listed).inputs(few).bed
    again = replace(bench, split=listed).inputs(few).bed
    assert torch.equal(bed.rows, again.rows)
    assert len(bed.rows.unique()) == 60
    assert len(bed.attacked[1][:20].unique()) > 5
    assert len(bed.attacked[1].sort().values[:20].unique()) < 5, "by class there would be few"
    as_it_is = bench.inputs(few).bed.rows
    assert torch.equal(as_it_is, as_it_is.sort().values), "mixed images keep their order"


def test_without_a_store_with_an_empty_a_full_and_a_half_the_bytes_are_equal(
    bench: Bench, whole: tuple[Path, Scores], full: Path, made: list[tuple[str, str]]
) -> None:
    wanted = files(whole[1])
    assert files(score(bench.inputs(), store(None))) == wanted
    assert kinds(made) - {"apgd-t-more"} == EVERY
    count = len(made)
    made.clear()
    assert files(score(bench.inputs(), store(full))) == wanted
    assert made == []
    gone = pieces_in(full)[::2]
    for file in gone:
        file.unlink()
    again = score(bench.inputs(), store(full))
    assert files(again) == wanted
    # Images against a network are made only where an attack with them is.
    assert len(gone) - 2 <= len(made) <= len(gone) < count
    assert again.seconds.keys() == whole[1].seconds.keys()
    kept = {name for name, took in whole[1].seconds.items() if again.seconds[name] == took}
    assert len(kept) >= len(whole[1].seconds) - len(made)


def test_networks_scored_as_tasks_give_the_same_bytes(
    bench: Bench, whole: tuple[Path, Scores], made: Any, tmp_path: Path
) -> None:
    engine, (folder, here) = OneByOne(), whole
    elsewhere = store(tmp_path / "scores")
    found = score(replace(bench.inputs(), engine=engine), elsewhere)
    assert sorted(engine.done) == [
        "images against other",
        "images against target",
        "other",
        "target",
    ]
    assert files(found) == files(here)
    names = [
        [path.relative_to(one) for path in pieces_in(one)] for one in (folder, tmp_path / "scores")
    ]
    assert names[0] == names[1]
    # What is there already is not made again, nor are the images.
    engine.done.clear()
    made.clear()
    again = score(replace(bench.inputs(), engine=engine), elsewhere)
    assert files(again) == files(here)
    assert engine.done == ["other", "target"]
    assert made == []


def test_a_new_network_is_attacked_alone(
    bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    found = score(bench.inputs(names=("target", "other", "new")), store(full))
    others = [one for one in made if one[0] != "new"]
    assert others == [("target", "from-new"), ("other", "from-new")]
    assert kinds([one for one in made if one[0] == "new"]) - {"apgd-t-more"} == EVERY
    alone = score(bench.inputs(names=("target", "other", "new")), store(None))
    assert files(found) == files(alone)


def test_a_network_that_is_no_more_is_forgotten(
    bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    def content() -> dict[str, bytes]:
        found = (file for file in full.rglob("*") if file.is_file())
        return {file.relative_to(full).as_posix(): file.read_bytes() for file in found}

    before = content()
    score(bench.inputs(names=("target", "other", "new")), store(full))
    assert (full / "new").is_dir()
    assert (full / "target/from-new").is_dir()
    forget(full, "new")
    assert content() == before
    made.clear()
    score(bench.inputs(), store(full))
    assert made == []
    assert content() == before


def test_no_name_leads_out_of_the_store(tmp_path: Path) -> None:
    kept = store(tmp_path / "scores")
    for name in ("../x", "/x", "..", "a/b", "a b"):
        key = kept.key(name, name, {})
        kept.save(key, ({}, {}))
        assert kept.load(key) == ({}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["scores"]


def test_a_new_set_costs_predictions_alone(
    bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    found = score(bench.inputs(sets=("fgsm", "pgd")), store(full))
    assert made == []
    rows = {(r.network, r.attack) for r in found.results if r.protocol == "transfer"}
    assert rows == {(n, a) for n in ("target", "other") for a in ("clean", "fgsm", "pgd")}


TWICE = {"max_iter": 4}
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "fgsm": ({"whitebox": {"fgsm": {"batch_size": 5}}}, {"fgsm"}),
    "pgd's starts": ({"whitebox": {"pgd": {"num_random_init": 2}}}, {"pgd", "doubled"}),
    "pgd's steps": ({"whitebox": {"pgd": TWICE}}, {"pgd", "doubled", "curves"}),
    "one more attack": (
        {"whitebox": {"short": {**PGD, **TWICE, "num_random_init": 0}}},
        {"short"},
    ),
    "surrogate": ({"surrogate": TWICE}, {"images", "from"}),
    "apgd's steps": ({"autoattack": {"max_iter": 4}}, {"apgd-ce", "apgd-t"}),
    "apgd's starts": ({"autoattack": {"num_random_init": 2}}, {"apgd-ce", "apgd-t"}),
    "apgd's targets": ({"autoattack": {"targets": 3}}, {"apgd-t"}),
    "square's queries": ({"autoattack": {"queries": 12}}, {"square"}),
    "batches": ({"autoattack": {"batch_size": 7}}, {"apgd-ce", "apgd-t", "square"}),
    "adaptive, epochs": ({"adaptive": {"training": {"epochs": 2}}}, {"dgn", "dgn-any"}),
    "adaptive, images": ({"adaptive": {"images_per_class": 2}}, {"dgn", "dgn-any"}),
    "adaptive, name of the bank": ({"adaptive": {"bank": "lrp"}}, set()),
    "curves, images": ({"curves": {"n": 7}}, {"curves"}),
    "curves, radii": ({"curves": {"radii": [0, 2]}}, {"curves"}),
    "curves, steps": ({"curves": {"steps": [2, 3]}}, {"curves"}),
    "images": ({"n": 15}, EVERY),
}
"""Settings → the pieces that they decide."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_makes_the_pieces_that_it_decides_and_no_others(
    name: str, bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    over, wanted = CHANGES[name]
    found = score(bench.inputs(over), store(full))
    # The series goes on from what was left, whatever left it.
    follows = SERIES if wanted & (WHITEBOX | {"short", "square"}) else set()
    assert wanted <= kinds(made) <= wanted | follows
    assert kinds([one for one in made if one[0] == "target"]) >= wanted
    if name in ("fgsm", "pgd's steps", "surrogate", "curves, radii"):
        assert files(found) == files(score(bench.inputs(over), store(None)))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"eps": 0.07}, EVERY),
        ({"seed": 4}, EVERY),
        ({"bank_md5": "another"}, {"dgn", "dgn-any"}),
    ],
)
def test_threat_seed_and_bank_decide(
    change: dict[str, Any], wanted: set[str], bench: Bench, full: Path, made: Any
) -> None:
    score(bench.inputs(**change), store(full))
    assert kinds(made) - {"apgd-t-more"} == wanted


def test_weights_and_source_decide_all_of_their_network(
    bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    known = bench.inputs()
    target, other = known.networks
    for changed in (replace(other, md5="9" * 32), replace(other, source="mine")):
        made.clear()
        score(replace(known, networks=[target, changed]), store(full))
        assert [one for one in made if one[0] == "target"] == [("target", "from-other")]
        assert kinds([one for one in made if one[0] == "other"]) - {"apgd-t-more"} == EVERY


@pytest.mark.parametrize("basis", [{"code": "d"}, {"machine": "another"}])
def test_code_and_machine_decide_everything(
    basis: dict[str, str], bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    score(bench.inputs(), store(full, **basis))
    assert kinds(made) - {"apgd-t-more"} == EVERY


def test_an_own_network_takes_the_images_of_the_others(
    bench: Bench, full: Path, made: list[tuple[str, str]]
) -> None:
    own = Network("new", "9" * 32, bench.nets["new"])
    found = score(replace(bench.inputs(), own=own), store(full, "own"))
    assert {network for network, _ in made} == {"new"}
    assert {row.network for row in found.results} == {"new"}
    assert found.pairs == []
    assert {check.about for check in found.checks} == {"new"}
    made.clear()
    score(bench.inputs(), store(full))  # it left what the others' last run had used
    assert made == []
    again = score(replace(bench.inputs(), own=own), store(full, "own"))
    assert made == []
    assert files(again) == files(found)


def test_a_quick_scoring_makes_the_quick_rows_alone(
    bench: Bench, whole: tuple[Path, Scores], full: Path, made: list[tuple[str, str]]
) -> None:
    found = score(replace(bench.inputs(), dgns=None, quick=True), store(full, "rescore"))
    assert made == []
    assert found.results == quick_rows(whole[1].results)
    assert (found.checks, found.points, found.pairs) == ([], [], [])
    fresh = score(replace(bench.inputs(), dgns=None, quick=True), store(None))
    assert kinds(made) == WHITEBOX
    assert csv_text(fresh.results) == csv_text(found.results)


def damages() -> Iterator[tuple[str, Any]]:
    yield "empty", lambda file, other: file.write_bytes(b"")
    yield "cut short", lambda file, other: file.write_bytes(file.read_bytes()[:-3])
    yield "another piece's", lambda file, other: shutil.copy(other, file)
    yield "gone", lambda file, other: file.unlink()

    def flip(file: Path, other: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    yield "one bit", flip


@pytest.mark.parametrize(("what", "damage"), damages())
def test_a_damaged_piece_is_made_again(
    what: str, damage: Any, bench: Bench, whole: Any, full: Path, made: list[tuple[str, str]]
) -> None:
    with_tensors = [file for file in pieces_in(full) if b'"stands"' in file.read_bytes()]
    damage(with_tensors[0], with_tensors[1])
    assert files(score(bench.inputs(), store(full))) == files(whole[1]), what
    assert len(made) in (1, 2)  # and the images that it needs, where they are asked for
    made.clear()
    score(bench.inputs(), store(full))
    assert made == []


def test_what_the_last_run_of_a_name_used_stays(bench: Bench, full: Path) -> None:
    before = {file.name for file in pieces_in(full)}
    square = {"autoattack": {"queries": 12}}
    score(bench.inputs(square), store(full, "own"))
    both = {file.name for file in pieces_in(full)}
    assert both > before
    score(bench.inputs(), store(full, "own"))
    assert {file.name for file in pieces_in(full)} == before
    score(bench.inputs(square), store(full))
    assert {file.name for file in pieces_in(full)} == both  # "own" still uses the old ones
    score(bench.inputs(square), store(full, "own"))
    after = {file.name for file in pieces_in(full)}
    assert len(after) == len(before)
    assert after != before


def test_a_run_that_fails_removes_nothing_and_what_it_made_stays(
    bench: Bench, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name for file in pieces_in(full)}

    def fails(self: Pieces) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "resumed", fails)
        with pytest.raises(KeyboardInterrupt):
            score(bench.inputs({"autoattack": {"queries": 12}}), store(full))
    left = {file.name for file in pieces_in(full)}
    assert len(left) == len(before) + 1
    own = bench.inputs(names=("target",))
    score(own, store(full, "own"))
    assert left <= {file.name for file in pieces_in(full)}


def test_a_list_that_is_no_list_names_nothing(bench: Bench, full: Path, made: Any) -> None:
    (full / "own.json").write_text("{")
    (full / "other.json").write_text("7")
    score(bench.inputs(), store(full))
    assert made == []


def test_what_is_neither_json_nor_a_tensor_decides_no_piece() -> None:
    def key(piece: Mapping[str, Any]) -> str:
        return store(None).key("target", "pgd", piece)

    with pytest.raises(TypeError, match="Path: want a tensor, or JSON"):
        key({"where": Path("a")})
    one, other = torch.zeros(2), torch.zeros(2, dtype=torch.float64)
    assert len({key({"x": x}) for x in (one, other, one[:0], one.view(1, 2), one.bool())}) == 5
    assert key({"x": one.clone()}) == key({"x": one})


def test_without_dgns_sets_and_other_networks_only_what_is_left_is_asked(
    bench: Bench, tmp_path: Path, made: list[tuple[str, str]]
) -> None:
    own = Network("target", "t" * 32, bench.nets["target"])
    bare = replace(bench.inputs(names=(), sets=()), dgns=None, own=own)
    found = score(bare, store(tmp_path, "own-target"))
    rows = {(row.protocol, row.attack) for row in found.results}
    assert {name for protocol, name in rows if protocol == "blackbox"} == {"square"}
    assert {name for protocol, name in rows if protocol == "worst"} == {
        *("clean", "whitebox", "blackbox", "all")
    }
    assert {protocol for protocol, _ in rows} == {"transfer", "whitebox", "blackbox", "worst"}
    assert kinds(made) - {"apgd-t-more"} == EVERY - {"from", "images", "dgn", "dgn-any"}
    lacking = found.found["target"].left_out()
    assert list(lacking) == ["transfer", "blackbox", "adaptive"]
    assert score(bench.inputs(), store(None)).found["target"].left_out() == {}


def test_an_interrupted_network_keeps_its_pieces_while_another_is_scored(
    bench: Bench, tmp_path: Path, made: list[tuple[str, str]]
) -> None:
    def inputs(name: str) -> ScoringInputs:
        own = Network(name, name.ljust(32, "0"), bench.nets[name])
        return replace(bench.inputs(names=(), sets=()), dgns=None, own=own)

    def begin(inputs: ScoringInputs) -> None:
        assert inputs.own
        victim = inputs.bed.victim(inputs.own, silent)
        with store(tmp_path, "own-target") as kept:
            pieces = Pieces(victim, inputs.own.md5, kept)
            pieces.check("deterministic", lambda: Check("deterministic", "target", "ok", {}, "x"))
            raise KeyboardInterrupt

    first = inputs("target")
    with pytest.raises(KeyboardInterrupt):
        begin(first)
    before = pieces_in(tmp_path)
    assert len(before) == 1
    score(inputs("other"), store(tmp_path, "own-other"))
    assert set(before) < set(pieces_in(tmp_path))
    made.clear()
    score(first, store(tmp_path, "own-target"))
    assert ("target", "deterministic") not in made


def test_the_price_of_each_network_is_told_before_its_first_attack_alone(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Network("target", "t" * 32, bench.nets["target"])
    bare = replace(bench.inputs(names=(), sets=()), dgns=None, own=own)

    def printed() -> str:
        score(bare, store(tmp_path, "own-target"))
        return capsys.readouterr().out

    assert printed().count("images are right; at most ") == 1
    assert "at most" not in printed()  # all is there already
    inputs = bench.inputs()
    score(inputs, store(None))
    assert capsys.readouterr().out.count("; at most ") == len(inputs.networks)
