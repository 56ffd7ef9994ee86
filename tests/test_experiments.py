"""The experiments: what docs say of them, and what params.yaml made of it."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.base.account import measured
from deepcustom.base.params import read_params
from deepcustom.base.rows import SUBJECTS, networks, row, rows
from deepcustom.evaluation.results import read_csv
from deepcustom.pipeline.histories import read_history

EXPERIMENTS = ROOT / "docs/experiments"
PARAMS = read_params(ROOT / "params.yaml")
DATA_SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def settings(stage: str, subject: str, key: str) -> dict[str, Any]:
    """The subject's rows of a section by what they say of ``key``: the settings of each."""
    return {one.about[key]: one.settings for one in rows(PARAMS, stage, subject)}


@pytest.fixture(scope="module")
def tried() -> list[dict[str, str]]:
    with (ROOT / "docs/experiments/dgn_budget.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def last(tried: list[dict[str, str]]) -> dict[tuple[str, int], float]:
    """(loss, epochs) at the rate of 1e-3 → target accuracy on val at the end."""
    ended = [one for one in tried if one["epoch"] == one["epochs"]]
    kept = [one for one in ended if float(one["learning_rate"]) in (0.0, 1e-3)]
    return {(r["loss"], int(r["epochs"])): float(r["val_target_accuracy"]) for r in kept}


def test_the_budgets_were_tried_on_the_committed_network(tried: list[dict[str, str]]) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    (out,) = [o for o in lock["train_target@mnist"]["outs"] if o["path"].startswith("models/")]
    assert {one["target_md5"] for one in tried} == {out["md5"]}


def test_what_the_docs_say_of_it(last: dict[tuple[str, int], float]) -> None:
    for epochs in (1, 3, 6):
        assert last["suspiciousness", epochs] > last["control", epochs]
    for loss in ("lrp", "suspiciousness"):
        assert last[loss, 1] < last[loss, 6], "longer training weakens it"
    for epochs in (3, 6):
        assert last["lrp", epochs] < last["control", epochs] - 0.1
    assert abs(last["lrp", 6] - last["lrp optimum", 0]) < 0.1
    nce = measured(ROOT / "reports/metrics/mnist/train_dgn/nce.json")
    assert nce["val_target_accuracy"] < 0.02


def test_the_budgets_are_those_of_the_docs() -> None:
    banks = settings("train_dgn", "mnist", "bank")
    text = " ".join((ROOT / "docs/losses.md").read_text().split())
    assert "three epochs for `lrp`, `nce` and `nce-ball`, six for `suspiciousness`" in text
    epochs = {name: bank["training"]["epochs"] for name, bank in banks.items()}
    assert epochs == {"lrp": 3, "nce": 3, "nce-ball": 3, "suspiciousness": 6}


def test_epochs_of_hardening_follow_from_val() -> None:
    with (ROOT / "docs/experiments/gf_epochs.csv").open(newline="") as file:
        found = {(row["network"], int(row["epochs"])): row for row in csv.DictReader(file)}
    text = " ".join((ROOT / "docs/parameters.md").read_text().split())
    section = text.split("## How long to harden on a fixed set")[1].split("## ")[0]
    for key in ("val_accuracy", "val_own_attack_accuracy"):
        for network in ("suspiciousness", "nce"):
            few, many = (float(found[network, epochs][key]) for epochs in (8, 12))
            assert few < many
            assert f"from {100 * few:.1f} % to {100 * many:.1f} %" in section
    hardened = settings("adversarial_train", "cifar10", "network")
    fixed = {
        name: net["training"]["epochs"]
        for name, net in hardened.items()
        if net["type"] == "goodfellow"
    }
    assert set(fixed.values()) == {12}
    assert len(fixed) == 6


def test_the_table_of_precisions_is_what_was_measured() -> None:
    with (ROOT / "docs/experiments/precision.csv").open(newline="") as file:
        found = {
            (row["dataset"], row["what"], row["precision"], row["seed"]): float(row["val_accuracy"])
            for row in csv.DictReader(file)
        }
    text = (ROOT / "docs/speed.md").read_text()
    section = text.split("## What mixed precision costs")[1].split("## ")[0]
    seeds = ("1", "2", "3")
    for dataset, title in (("mnist", "MNIST"), ("cifar10", "CIFAR-10")):
        for what, shown in (("target", "target"), ("nce-ball", "`nce-ball`")):
            cells = [
                ", ".join(f"{100 * found[dataset, what, kind, seed]:.2f}" for seed in seeds)
                for kind in ("bfloat16", "float32")
            ]
            assert f"| {title}, {shown} | {cells[0]} | {cells[1]} |" in section
    weaker = [
        100
        * (found["cifar10", "nce-ball", "bfloat16", s] - found["cifar10", "nce-ball", "float32", s])
        for s in seeds
    ]
    assert f"by {min(weaker):.1f} to {max(weaker):.1f} points" in section
    curves = read_history(ROOT / "reports/training/cifar10/train_dgn/nce-ball.csv")
    two = [curves[f"class_{k}/val_target_accuracy"] for k in (0, 1)]
    fourth, fifth = (50 * sum(curve[epoch - 1] for curve in two) for epoch in (4, 5))
    assert f"from {fourth:.1f} to {fifth:.1f} %" in section


def test_memory_does_not_depend_on_the_number_of_images() -> None:
    with (EXPERIMENTS / "memory.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    text = (ROOT / "docs/speed.md").read_text()
    section = text.split("## What bounds memory")[1].split("\n## ")[0]
    assert {one["stage"] for one in found} >= {"prepare", "train_target", "train_dgn", "evaluate"}
    for one in found:
        few, many = int(one["mib_20000"]), int(one["mib_200000"])
        assert many <= 1.2 * few
        assert f"| {one['stage']} | {few} MiB | {many} MiB | {one['ratio']} |" in section


def test_two_libraries_of_apgd_are_as_the_docs_say() -> None:
    with (ROOT / "docs/experiments/apgd_libraries.csv").open(newline="") as file:
        found = {(row["dataset"], row["loss"], row["library"]): row for row in csv.DictReader(file)}
    text = " ".join((ROOT / "docs/evaluation.md").read_text().split())
    assert "both leave the same within a point" in text
    assert "its untargeted one takes four times as long on MNIST" in text
    assert {key[:2] for key in found} == {
        (d, x) for d in ("mnist", "cifar10") for x in ("ce", "dlr")
    }
    for dataset, loss, library in found:
        own, other = (found[dataset, loss, name] for name in ("ART", "pyautoattack"))
        assert abs(float(own["accuracy_left"]) - float(other["accuracy_left"])) <= 0.01, library
    assert round(float(found["mnist", "dlr", "ART"]["ratio"])) == 4


def test_half_the_images_adapt_nearly_as_well() -> None:
    with (ROOT / "docs/experiments/adaptive_budget.csv").open(newline="") as file:
        found = [one for one in csv.DictReader(file) if one["attack"] == "dgn-any"]
    left = {
        (r["network"], int(r["images_per_class"]), float(r["learning_rate"])): r["val_accuracy"]
        for r in found
    }
    chosen = row(PARAMS, "evaluate", "cifar10").settings["adaptive"]
    bank = row(PARAMS, "train_dgn", "cifar10", chosen["bank"])
    rate = bank.settings["training"]["learning_rate"]
    budget = (chosen["images_per_class"], chosen["training"]["learning_rate"])
    assert budget == (4500 // 2, 2 * rate)
    assert "at most a point more" in (ROOT / "docs/evaluation.md").read_text()
    adapted_to = {network for network, _, _ in left}
    assert adapted_to == {"madry", "fgsm-art"}
    for network in adapted_to:
        assert float(left[network, *budget]) <= float(left[network, 4500, rate]) + 0.01


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts run in the project's top folder, and find one another in their own."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(EXPERIMENTS)


def experiment(name: str) -> ModuleType:
    """A script of docs/experiments as a module."""
    return importlib.import_module(name)


@pytest.mark.parametrize("script", sorted(EXPERIMENTS.glob("*.py")), ids=lambda file: file.stem)
def test_every_script_can_be_imported(script: Path) -> None:
    module = experiment(script.stem)
    assert module.__file__ is not None
    assert Path(module.__file__) == script


def test_the_table_of_seeds_is_what_was_measured() -> None:
    with Path("docs/experiments/hardening_seeds.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    measured = {(one["dataset"], one["network"], int(one["seed"])) for one in found}
    assert len(measured) == len(found)
    seeds = {
        subject: dict.fromkeys(networks(PARAMS, subject), (1, 2)) for subject in PARAMS[SUBJECTS]
    }
    assert measured == {
        (subject, network, PARAMS["seed"] + more)
        for subject in PARAMS[SUBJECTS]
        for network, others in {**seeds[subject], "pgd-3": (0, 1, 2)}.items()
        for more in others
        if network != "target"
    }
    table = experiment("hardening_seeds").table()
    assert len(table.splitlines()) == 2 + len({key[:2] for key in measured})
    assert table in Path("docs/evaluation.md").read_text()


def test_the_tables_of_the_ablation_are_what_was_measured() -> None:
    ablation = experiment("online_ablation")
    found = [(r["dataset"], r["variant"], int(r["seed"])) for r in ablation.measured()]
    assert len(set(found)) == len(found)
    assert set(found) == {*ablation.wanted()}
    for dataset in ablation.VARIANTS:
        assert ablation.table(dataset) in Path("docs/evaluation.md").read_text()


def test_what_the_docs_say_of_the_ablation() -> None:
    worst: dict[str, list[float]] = {}
    same: dict[str, tuple[str, ...]] = {}
    for one in experiment("online_ablation").measured():
        if one["dataset"] == "mnist":
            worst.setdefault(one["variant"], []).append(100 * float(one["worst"]))
            same[one["variant"]] = (one["clean"], one["pgd"], one["whitebox"], one["worst"])
    online = worst["online"]
    assert 7 < max(online) - min(online) < 9
    gain = sum(online) / 4 - sum(worst["no noise"]) / 4
    assert round(gain) in (3, 4)
    assert min(online) > max(max(worst[name]) for name in worst if name.startswith("pgd-7"))
    (seven,), (longest,) = worst["pgd-7"], worst["pgd-7, steps of 0.3"]
    assert round(longest - seven) == 3
    (shorter,), (mended,) = worst["no generator"], worst["no generator, steps of 0.3"]
    assert shorter < mended < min(online)
    assert worst["random generator"][0] < shorter
    assert worst["generator learns in the second half"][0] < shorter
    assert same["no reused step"] == same["one further step"]
    assert worst["no step at all"] == worst["full ball from the start"] == [0.0]
    lesser = {"one further step", "steps of 0.2", "rate 0.0003", "half clean"}
    lesser |= {"no reused step", "noise of a whole radius", "loss lrp", "loss suspiciousness"}
    lesser |= {"no generator", "no generator, steps of 0.3", "random generator"}
    lesser |= {"generator learns in the second half", "no step at all", "full ball from the start"}
    within = worst.keys() - lesser - {name for name in worst if name.startswith("pgd-7")}
    for name in lesser:
        assert max(worst[name]) < min(online), name
    for name in within - {"online", "no noise"}:
        assert min(online) <= worst[name][0] <= max(online), name


def test_what_a_generator_that_learns_meanwhile_buys() -> None:
    """The table beside PGD of as many gradients, and the sentence above the results."""
    seeds = experiment("hardening_seeds")
    table = seeds.comparison()
    assert table in Path("docs/evaluation.md").read_text()
    counts = {tuple(line.split(" | ")[1:3]) for line in table.splitlines()[2:]}
    assert counts == {("madry", "8"), ("pgd-3", "4"), ("online", "4")}
    assert all(len(found) == 3 for (_, name), found in seeds.times().items())
    assert {len(found.worst) for found in seeds.trainings().values()} == {3}
    known, ratios = seeds.trainings(), seeds.times()
    online, madry, few = (known["mnist", name].worst for name in ("online", "madry", "pgd-3"))
    assert min(online) > max(madry), "each training of online leaves more than any of madry"
    assert sum(few) < sum(madry)
    for dataset, at_most in (("mnist", 1.0), ("cifar10", 0.6)):
        assert sorted(ratios[dataset, "online"])[1] <= at_most
        clean = [sum(known[dataset, name].clean) / 3 for name in ("online", "madry")]
        assert clean[0] > clean[1] - 0.5
    online, madry, few = (
        sum(known["cifar10", name].worst) / 3 for name in ("online", "madry", "pgd-3")
    )
    assert madry - 1 < online <= few, "nothing that the generator adds"
    assert sorted(ratios["cifar10", "pgd-3"])[1] < sorted(ratios["cifar10", "online"])[1]
    assert seeds.headline() in " ".join(Path("docs/results.md").read_text().split())


def test_no_seed_makes_fixed_images_a_defence() -> None:
    with (ROOT / "docs/experiments/hardening_seeds.csv").open(newline="") as file:
        worst = {
            (r["dataset"], r["network"], r["seed"]): float(r["worst"]) for r in csv.DictReader(file)
        }
    fixed = {
        (subject, network)
        for subject in PARAMS[SUBJECTS]
        for network, one in settings("adversarial_train", subject, "network").items()
        if one["type"] == "goodfellow"
    }
    assert fixed <= {(subject, network) for subject, network, _ in worst}
    for (subject, network, _), value in worst.items():
        if (subject, network) in fixed:
            assert value <= 0.01


def csv_of(name: str) -> list[dict[str, str]]:
    with (EXPERIMENTS / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_hardly_waits_for_its_images_as_the_docs_say() -> None:
    share = {(one["network"], one["file"]): float(one["share_waiting"]) for one in csv_of("loader")}
    assert max(share.values()) <= 0.05
    cnn = "the study's CNN"
    text = " ".join((ROOT / "docs/speed.md").read_text().split())
    assert f"{100 * share[cnn, 'cold']:.1f} % of the time goes into that if" in text
    assert f"first, and {100 * share[cnn, 'warm']:.1f} % if not" in text
    assert f"of a ResNet-20's steps, {100 * share['ResNet-20', 'cold']:.1f} % (" in text


def test_compiling_does_not_pay_as_the_docs_say() -> None:
    """It is off; should it come to pay, this says so."""
    found = {one["network"]: one for one in csv_of("compiled")}
    cnn, residual = found["the study's CNN"], found["ResNet-20"]
    text = " ".join((ROOT / "docs/speed.md").read_text().split())
    assert f"training slower ({float(cnn['times_as_fast']):.2f} times as fast)" in text
    assert f"hardly faster ({float(residual['times_as_fast']):.2f} times)" in text
    seconds = [f"{float(one['seconds_to_compile']):.0f}" for one in (cnn, residual)]
    assert f"after {' and '.join(seconds)} seconds of compiling" in text
    assert all(float(one["times_as_fast"]) < 1.1 for one in found.values())


def test_what_several_processes_gain_is_what_was_measured() -> None:
    with (EXPERIMENTS / "together.csv").open(newline="") as file:
        found = {row["way"]: row for row in csv.DictReader(file)}
    text = (ROOT / "docs/cluster.md").read_text()
    for way, one in found.items():
        assert f"| {way} | {one['times_as_fast']} |" in text
    assert float(found["2 processes, 1 thread"]["times_as_fast"]) >= 1.6
    (kind,) = {(one["capability"], one["precision"]) for one in found.values()}
    assert f"({', '.join(kind)})" in text


def test_what_a_cluster_costs_and_gains_is_what_was_measured() -> None:
    with (EXPERIMENTS / "cluster.csv").open(newline="") as file:
        found = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    text = " ".join((ROOT / "docs/cluster.md").read_text().split())
    each, share = found["milliseconds a task, of 2000"], found["two nodes, in times of one"]
    assert f"A task takes {each:.1f} ms besides its work" in text
    assert f"takes {share:.2f} times as long as on one such node" in text
    assert each <= 10
    assert share <= 0.6


def test_the_reckoning_of_a_large_cluster_is_on_its_page() -> None:
    with (EXPERIMENTS / "scale.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    text = (ROOT / "docs/scale.md").read_text()
    facts = {row["stage"]: row["work_s"] for row in found if not row["gpus"]}
    words = {
        "shown": "the network looks at it",
        "gradient": "a gradient of the network's loss by the image",
        "step": "the network trains on it",
        "made": "a generator, told the label, perturbs it",
        "taught": "that generator trains on it",
    }
    for what, says in words.items():
        assert f"| {says} | {facts[f'gflop: {what}']} |" in text
    assert f"a second a driver sends: {facts['images a second: sent']};" in text
    assert f"verifies and writes: {facts['images a second: returned']}." in text
    few, many = (
        {row["stage"]: row for row in found if row["gpus"] == gpus} for gpus in ("8", "64")
    )
    assert len(few) == len(many) == 8
    for stage, one in few.items():
        both = [f"{row['work_s']} | {row['added_s']}" for row in (one, many[stage])]
        cells = [stage, one["tasks"], *both, one["driver_s"]]
        assert f"| {' | '.join(cells)} |" in text
        assert one["tasks"] != "1" or one["work_s"] == many[stage]["work_s"]


def test_the_minutes_of_one_evaluation_are_those_that_were_measured() -> None:
    found = {row["part"]: int(row["seconds"]) for row in csv_of("one_network")}
    text = " ".join((ROOT / "docs/evaluation.md").read_text().split())
    whole, square, adaptive = (found[part] for part in ("everything", "square", "adaptive"))
    assert f"takes {whole} seconds with its siblings" in text
    assert f"Square takes {square}, and adapting DGNs {adaptive}" in text
    assert found["everything but square"] == pytest.approx(whole - square, abs=1)
    assert whole <= 9 * 60


def test_autoattack_here_is_that_of_its_authors() -> None:
    """Verdicts are equal, image by image, and what this project tries by itself leaves hardly more."""
    text, found = (ROOT / "docs/evaluation.md").read_text(), csv_of("autoattack")
    assert {one["network"] for one in found} == {"fgsm-art", "madry", "online"}
    assert {one["dataset"] for one in found} == {"mnist", "cifar10"}
    assert len(found) == 6
    for one in found:
        here, plainly, series = (
            float(one[key]) for key in ("protocol_left", "plainly_left", "series_left")
        )
        shown = " | ".join(f"{100 * left:.1f}" for left in (here, plainly, series))
        named = f"{DATA_SETS[one['dataset']]} | `{one['network']}`"
        assert f"| {named} | {shown} |" in text
        assert one["images"] == "1000"
        assert one["images_that_differ"] == "0"
        assert here == plainly
        assert series <= here + 0.005
        file = ROOT / f"reports/results/{one['dataset']}.csv"
        known = {result.network: result.network_md5 for result in read_csv(file)}
        assert known[one["network"]] == one["network_md5"]
