"""The benchmarks: a fair race, plain ports that compute the same, and tables from figures alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import budgets
import numpy as np
import pytest
import torch
from networks import GENERATOR, NETWORK
from pipeline_fixtures import ROOT
from torch import Tensor, nn

from deepcustom.attacks.art import art_classifier, run_attack
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.losses.lrp import lrp_terms
from deepcustom.attacks.losses.nce import nce_terms
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.data.arrays import Split
from deepcustom.data.sources import find_source
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.base import Classifier, build, parameter_count
from deepcustom.training.nets.mnist import MnistClassifier, MnistGenerator
from deepcustom.training.prediction import accuracy
from deepcustom.training.weights import save_network

sys.path.insert(0, str(ROOT))

from benchmarks import (
    figures,
    inputs,
    making,
    memory,
    peaks,
    plain,
    race,
    report,
    sizes,
    training,
)
from benchmarks.__main__ import main
from benchmarks.race import Contender, RaceError, once

STUBS = """
import os, signal, time
from pathlib import Path
from benchmarks.worker import Work

def runner(log, name, seconds=0.0):
    def call():
        start = time.time()
        time.sleep(seconds)
        with Path(log).open("a") as file:
            file.write(f"{name} {os.getpid()} {start} {time.time()}\\n")
        print("noise that is no answer")
        return name
    return Work(call, 10, lambda made: {"made": made})

def fails():
    raise ValueError("no such\\nnetwork")

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

def needs():
    import no_such_package
"""


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module ``stubs`` that contenders can be built from; the file where its runners write."""
    (tmp_path / "stubs.py").write_text(STUBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "log"


def runner(log: Path, name: str, **options: Any) -> Contender:
    return Contender(name, name, "stubs:runner", {"log": str(log), "name": name, **options})


# The race


def test_contenders_take_turns_each_in_its_own_process(stubs: Path) -> None:
    notes: list[int] = []

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        notes.append(steps)

    results = race.race(
        [runner(stubs, "a"), runner(stubs, "b"), runner(stubs, "c", seconds=0.01)],
        rounds=3,
        least=0.0,
        advance=advance,
    )
    lines = [line.split() for line in stubs.read_text().splitlines()]
    assert "".join(name for name, *_ in lines) == "aabbcc" + 3 * "abc"
    assert len({pid for _, pid, *_ in lines}) == 3
    assert str(os.getpid()) not in {pid for _, pid, *_ in lines}
    for (*_, end), (_, _, start, _) in pairwise(lines):
        assert float(end) <= float(start), "two worked at the same time"
    assert notes == [1] * 12
    for result in results:
        assert (result["count"], result["calls"]) == (10, 1)
        assert len(result["seconds"]) == len(result["fastest"]) == 3
        assert result["facts"] == {"made": result["name"]}


def test_a_turn_takes_as_many_calls_as_fill_it(stubs: Path) -> None:
    (result,) = race.race([runner(stubs, "a", seconds=0.02)], rounds=2, least=0.1)
    assert 2 <= result["calls"] <= 5
    assert len(stubs.read_text().splitlines()) == 2 + 2 * result["calls"]
    assert all(f < s for f, s in zip(result["fastest"], result["seconds"], strict=True))
    assert min(figures.rates(result)) <= 10 / 0.02


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("stubs:fails", "the loser: ValueError: no such network"),
        ("stubs:dies", "the loser: its process ended with signal SIGKILL"),
        ("stubs:needs", "the loser: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_contender_that_fails_is_named_in_one_line(stubs: Path, build: str, message: str) -> None:
    with pytest.raises(RaceError) as caught:
        race.race([runner(stubs, "a"), Contender("loser", "the loser", build)], rounds=1, least=0.0)
    assert str(caught.value) == message


def test_an_optional_contender_without_its_package_is_absent(stubs: Path) -> None:
    other = Contender("b", "b", "stubs:needs", optional=True)
    one, absent = race.race([runner(stubs, "a"), other], rounds=2, least=0.0)
    assert len(one["seconds"]) == 2
    assert absent["absent"] == "ModuleNotFoundError: No module named 'no_such_package'"
    assert figures.present([one, absent]) == [one]
    with pytest.raises(RaceError):  # optional is the package, not the rest
        race.race([Contender("c", "c", "stubs:fails", optional=True)], rounds=1, least=0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_every_process(stubs: Path, root: Path, number: signal.Signals) -> None:
    program = f"""
import runpy, sys
from benchmarks import making
from benchmarks.race import Contender
each = [Contender(n, n, "stubs:runner", dict(log={str(stubs)!r}, name=n, seconds=0.2)) for n in "ab"]
making.contenders = lambda *_: each
sys.argv = ["benchmarks", "--quick", "--only", "making", "--dataset", "mnist", "--rounds", "1000"]
sys.argv += ["--root", {str(root)!r}, "--out", {str(root / "out")!r}]
runpy.run_module("benchmarks", run_name="__main__")
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        while not stubs.exists() or "b" not in stubs.read_text():
            assert time.monotonic() < deadline, "the race did not start"
            time.sleep(0.05)
        pids = {int(line.split()[1]) for line in stubs.read_text().splitlines()}
        parent.send_signal(number)
        _, said = parent.communicate(timeout=300)
        assert (parent.returncode, said) == (130, "stopped; what was measured before is saved\n")
    finally:
        parent.kill()
        parent.wait()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# The plain ports


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_plain_networks_compute_what_the_projects_do(dataset: str) -> None:
    torch.manual_seed(1)
    x = torch.rand(3, *find_source(dataset).spec.shape)
    for ours, ports in ((NETWORK, plain.classifier), (GENERATOR, plain.generator)):
        same_numbers(build(ours[dataset]), ports(dataset), x)


@pytest.mark.parametrize("subject", plain.RESIDUAL)
def test_plain_residual_networks_compute_what_the_projects_do(subject: str) -> None:
    torch.manual_seed(1)
    known = inputs.Inputs(ROOT, subject)
    net = build(known.architecture(known.subject.network))
    same_numbers(net, plain.classifier(subject), torch.rand(3, 3, 32, 32))


def same_numbers(net: nn.Module, port: nn.Module, x: Tensor) -> None:
    net(x)  # batch norm has seen something
    net.eval()
    port = plain.port(port, net)
    assert parameter_count(port) == parameter_count(net)
    torch.testing.assert_close(port(x), net(x), rtol=1e-4, atol=1e-4)


def test_plain_pgd_is_arts(target_net: Classifier, few: tuple[Tensor, Tensor]) -> None:
    x, y = few
    threat = ThreatModel(0.1)
    port = plain.port(plain.classifier("mnist"), target_net)
    estimator = art_classifier(target_net, (1, 28, 28), 10, torch.device("cpu"))
    settings = {"eps_step": 0.02, "max_iter": 7, "num_random_init": 0}
    for params, x_adv in (
        (budgets.attack(method="pgd", **settings), plain.pgd(port, x, y, 0.1, 0.02, 7)),
        (budgets.attack(method="fgsm"), plain.fgsm(port, x, y, 0.1)),
    ):
        wanted = torch.from_numpy(run_attack(estimator, params, threat, x, y))
        assert ((x_adv - wanted).abs() > 1e-5).float().mean() < 1e-3
        assert abs(accuracy(port, x_adv, y) - accuracy(target_net, wanted, y)) < 0.02
        assert accuracy(port, x_adv, y) < accuracy(port, x, y)


def test_plain_losses_are_the_projects(target_net: Classifier) -> None:
    torch.manual_seed(2)
    x, g = torch.rand(2, 5, 1, 28, 28).unbind()
    port = plain.port(plain.classifier("mnist"), target_net)
    wanted = torch.stack(list(nce_terms(x, g, target_net, 3, 1.0, 1.0).values())).sum(0).mean()
    torch.testing.assert_close(plain.nce(port, 3)(x, g), wanted)
    places = torch.randperm(784)[:20]
    wanted = torch.stack(list(lrp_terms(x, g, places, 0.3, 0.5).values())).sum(0).mean()
    torch.testing.assert_close(plain.lrp(places, 0.3, (1, 28, 28))(x, g), wanted)


def test_plain_training_learns() -> None:
    torch.manual_seed(3)
    x = torch.rand(64, 1, 28, 28) * 0.2
    net = plain.generator("mnist")

    def copy(x: Tensor, g: Tensor) -> Tensor:
        return nn.functional.mse_loss(g, x)

    means = [plain.train(net, copy, x, batch_size=16) for _ in range(5)]
    assert means[-1] < means[0] / 1.2


def test_flops_are_those_counted_by_hand() -> None:
    mnist = 28**2 * 32 * 9 + 14**2 * 64 * 32 * 9 + 5**2 * 128 * 64 * 9  # outputs times kernels
    mnist += 3**2 * 128 * 64 * 9 + 7**2 * 64 * 32 * 4 + 14**2 * 32 * 4  # inputs times kernels
    assert peaks.forward_flops("mnist") == 2 * mnist
    cifar = 30**2 * 32 * 27 + 14**2 * 64 * 32 * 9 + 12**2 * 128 * 64 * 9 + 5**2 * 128 * 128 * 9
    cifar += 5**2 * 128 * 128 * 9 + 11**2 * 128 * 64 * 16 + 14**2 * 64 * 32 * 16 + 30**2 * 32 * 27
    assert peaks.forward_flops("cifar10") == 2 * cifar


# Tables and words


def result(name: str, title: str, seconds: list[float], **more: Any) -> dict[str, Any]:
    usual = {"batch_size": 128, "accuracy": 0.0, "clean_accuracy": 0.9, "precision": "bfloat16"}
    facts = {**usual, **more.pop("facts", {})}
    return {
        "name": name,
        "title": title,
        "family": name,
        "options": {},
        "count": 100,
        "calls": 2,
        "seconds": seconds,
        "fastest": [s / 2 for s in seconds],
        "facts": facts,
        **more,
    }


MACHINE = {
    "processor": "abacus",
    "cores": 2,
    "capability": "AVX2",
    "bfloat16": ["amx_bf16"],
    "memory_gib": 8,
    "threads": 2,
    "load": 0.1,
    "python": "3.11.0",
    "versions": {"torch": "2.13.0", "foolbox": None},
}


def measured(group: str, results: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    dataset = "mnist" if group in ("making", "training") else None
    return {
        "group": group,
        "dataset": dataset,
        "date": "2026-01-02",
        "machine": MACHINE,
        "settings": {"quick": False, **settings},
        "results": results,
    }


def making_results() -> list[dict[str, Any]]:
    sizes = {n: {"facts": {"batch_size": n}, "options": {"batch_size": n}} for n in (32, 128)}
    one = {"family": "pgd-plain"}
    return [
        result("dgn", "DGNs, this project", [2.0, 1.0, 4.0]),
        result("fgsm-project", "FGSM, this project", [0.2, 0.1, 0.2], facts={"accuracy": 0.5}),
        result("fgsm-art", "FGSM, ART", [2.0, 1.1, 3.9], family="fgsm-art-default"),
        result("pgd-plain-32", "PGD-20, plain", [9.0, 9.0, 9.0], **one, **sizes[32]),
        result("pgd-plain-128", "PGD-20, plain", [8.0, 5.0, 8.0], **one, **sizes[128]),
        {"title": "PGD-20, other", "family": "pgd-other", "absent": "ImportError: gone"},
    ]


def test_ratios_are_taken_within_a_round() -> None:
    dgn, fgsm, *_ = making_results()
    assert figures.rates(dgn) == [100.0, 200.0, 50.0]
    assert figures.times(fgsm, dgn) == figures.Spread(10.0, 10.0, 20.0)
    assert str(figures.rate(dgn)) == "100 (50-200)"
    assert figures.digits(12345.6) == "12,300"
    assert figures.digits(0.012345) == "0.0123"


def test_the_table_shows_the_best_batch_and_says_who_is_faster() -> None:
    wanted = {"eps": 0.3, "eps_step": 0.03, "steps": 20, "judged": 100}
    images = {"dgn": 100, "fgsm": 100, "pgd": 100}
    section = report.section(measured("making", making_results(), images=images, **wanted))
    text = section.markdown()
    assert "| PGD-20, plain | 128 | 25 (25-40) | 4 (2-5) | 0.0 |" in text
    assert "| PGD-20, plain | 32 | 22.2 (22.2-22.2) |" in text  # among all batch sizes
    assert "| PGD-20, other | - | not importable: ImportError: gone | - | - |" in text
    assert "abacus, 2 cores (AVX2, instructions for bfloat16: amx_bf16)" in text
    faster, even, equal, ratio = section.remarks
    assert faster.startswith("**The generators are not the fastest here.**")
    assert "FGSM, this project (batches of 128), 10 (10-20) times and 50.0 %" in faster
    assert "plain" not in faster
    assert "Between the generators and FGSM, ART (batches of 128)" in even
    assert "fastest is FGSM, ART (batches of 128), which leaves 0.0 %" in equal
    assert "FGSM, this project, makes 11 (10-19.5) times" in ratio
    alone = making_results()
    assert report.remarks_on_making(alone[:1] + alone[3:4])[0].startswith("No attack here is")


def test_the_other_groups_have_tables_too() -> None:
    cost = {"flops": 2e6, "precision": "bfloat16", "loss": 0.5, "peak_bytes": 2**30}
    pair = [
        result("nce-project", "nce, this project", [1.0, 2.0], facts=cost),
        result("nce-plain", "nce, plain PyTorch", [2.0, 1.0], facts=cost),
    ]
    text = report.section(measured("training", pair, batch_size=128, epochs=1)).markdown()
    assert "| nce, plain PyTorch | 150 (100-200) | 1.25 (0.5-2) | 0.500 |" in text
    assert "is not clearly faster** than plain PyTorch: 1.25 (0.5-2) times." in text

    squares = [
        result(f"{p}-{n}", "", [2.0, 2.0], options={"precision": p, "size": n}, count=n * 1e6)
        for p in ("bfloat16", "float32")
        for n in (64, 128)
    ]
    text = report.section(measured("peaks", [*squares, pair[0]], sizes=[64, 128])).markdown()
    assert "bfloat16, the best of squares of 64 and 128 | - | - | 0.128 (0.128-0.128) |" in text
    assert "| 150 (100-200) | 2.0 | 0.3 (0.2-0.4) | 234 % (156-312) |" in text

    grown = result("b", "20 images", [5.0], count=20, calls=1, facts={"peak_bytes": 3 * 2**29})
    small = result("a", "10 images", [5.0], count=10, calls=1, facts={"peak_bytes": 2**30})
    text = report.section(measured("memory", [small, grown], dataset="cifar10")).markdown()
    assert "| 20 images | 5 | 4 | 1,536 | 1.50 |" in text
    assert "* 2 times the images took 1.50 times the memory." in text


def test_three_sizes_of_classifier_are_drawn_where_one_machine_measured_all(tmp_path: Path) -> None:
    wanted = {"eps": 0.03, "eps_step": 0.01, "steps": 20, "judged": 100}
    images = {"dgn": 100, "fgsm": 100, "pgd": 100}
    found = [
        {**measured("making", making_results(), images=images, **wanted), "dataset": name}
        for name in sizes.SHOWN
    ]
    assert sizes.drawable(found) == found
    (axes,) = sizes.draw(found).axes
    lines = {one.get_label(): one[0].get_ydata().tolist() for one in axes.containers}
    assert lines["generators, this project"] == [100.0] * 3
    assert lines["FGSM, this project"] == [1000.0] * 3
    assert sizes.write(found, tmp_path) == tmp_path / "sizes.png"
    assert "](sizes.png)" in report.markdown(found)
    # One is not there, or another machine measured it.
    assert sizes.drawable(found[:2]) == []
    other = {**found[2], "machine": {**MACHINE, "capability": "AVX512"}}
    assert sizes.write([*found[:2], other], tmp_path / "nowhere") is None
    assert "sizes.png" not in report.markdown([*found[:2], other])


def test_the_committed_page_is_made_from_the_committed_figures() -> None:
    loaded = report.load(ROOT / "benchmarks/results")
    measured = {(one["group"], one["dataset"]) for one in loaded}
    assert measured - {("making", name) for name in making.DEEP} == {
        *((group, dataset) for group in ("making", "training") for dataset in ("mnist", "cifar10")),
        ("peaks", None),
        ("memory", None),
    }
    deep = {("making", name) for name in making.DEEP}
    assert not measured & deep or deep <= measured
    written = (ROOT / "benchmarks/RESULTS.md").read_text()
    assert written == report.markdown(loaded), "python -m benchmarks --render"
    assert not [one for one in loaded if one["settings"]["quick"]], "a quick run was committed"


def test_the_words_on_three_sizes_of_classifier_are_those_of_the_figures() -> None:
    """Where a generator wins, and where not, as docs/speed.md tells it."""
    text, found = (ROOT / "docs/speed.md").read_text(), {}
    titles = ("the study's CNN", "ResNet-20", "ResNet-18")
    for name, title in zip(sizes.SHOWN, titles, strict=True):
        file = ROOT / f"benchmarks/results/making-{name}.json"
        best = {
            one["family"]: one
            for one in figures.best_of_families(json.loads(file.read_text())["results"])
        }
        assert best["dgn"]["facts"]["precision"] == "float32"
        left = {family: one["facts"]["accuracy"] for family, one in best.items()}
        ratios = {family: figures.times(best["dgn"], one) for family, one in best.items()}
        shown = [
            figures.digits(ratios[family].median)
            for family in ("fgsm-plain", "fgsm-project", "pgd-plain")
        ]
        shown += [f"{100 * left[family]:.1f}" for family in ("dgn", "fgsm-project")]
        assert f"| {title} | {' | '.join(shown)} |" in text
        found[title] = left, ratios

    def of(title: str, attack: str) -> list[tuple[float, figures.Spread]]:
        left, ratios = found[title]
        return [(left[name], ratios[name]) for name in left if name.startswith(attack)]

    own = {title: left["dgn"] for title, (left, _) in found.items()}
    assert all(5 * left < own[titles[0]] for left, _ in of(titles[0], "fgsm"))
    assert found[titles[0]][1]["fgsm-project"].most < 1
    assert all(ratio.least > 5 for _, ratio in of(titles[0], "pgd"))
    assert all(left > own[titles[1]] for left, _ in of(titles[1], "fgsm"))
    assert all(ratio.least > 5 for _, ratio in of(titles[1], "fgsm"))
    assert all(ratio.least > 100 for _, ratio in of(titles[1], "pgd"))
    assert all(5 * left < own[titles[2]] for left, _ in of(titles[2], "fgsm"))
    assert all(ratio.least > 50 for _, ratio in of(titles[2], "fgsm"))


def test_figures_of_the_documents_are_those_of_no_machine_by_name() -> None:
    import platform

    files = list((ROOT / "benchmarks/results").glob("*.json"))
    assert files
    for file in files:
        assert platform.node() not in re.findall(r"[\w.-]+", file.read_text())


# The whole, on networks that know nothing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with untrained MNIST networks and random images."""
    torch.manual_seed(0)
    (tmp_path / "models/target").mkdir(parents=True)
    (tmp_path / "models/dgn/mnist").mkdir(parents=True)
    save_network(tmp_path / "models/target/mnist.safetensors", MnistClassifier(), {})
    generators = [MnistGenerator().eval() for _ in range(10)]
    bank = DGNBank("mnist", "nce", "image", generators)
    bank.save(tmp_path / "models/dgn/mnist/nce.safetensors")
    draw = np.random.default_rng(0)
    for name in ("train", "test"):
        x = draw.integers(0, 256, (120, 1, 28, 28), dtype=np.uint8)
        y = np.arange(120, dtype=np.uint8) % 10
        Split.whole(x, y).save(tmp_path / f"data/prepared/mnist/{name}")
    return tmp_path


def test_without_networks_one_line_says_how_to_come_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*words, "--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: missing: models/target/mnist.safetensors, ")
    assert "data/prepared/cifar10/test/x.npy" in line
    assert "`dvc pull` fetches" in line
    assert "`dvc repro prepare@mnist" in line
    assert "`dvc pull`" in line
    assert not (tmp_path / "out").exists()


def test_a_quick_run_measures_saves_and_prints(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some contenders; the others would only be further processes that import torch."""
    out = root / "out"
    words = ["--quick", "--dataset", "mnist", "--root", str(root), "--out", str(out)]
    some = {"dgn", "fgsm-plain-128", "nce-project", "nce-plain"}
    for group in (making, training):
        chosen = [one for one in group.contenders(root, "mnist", True) if one.name in some]
        monkeypatch.setattr(group, "contenders", lambda *_, chosen=chosen: chosen)
    assert main([*words, "--rounds", "1", "--only", "making", "--only", "training"]) == 0
    printed = capsys.readouterr().out
    assert "A quick run, of no meaning." in " ".join(printed.split())
    files = {name: json.loads((out / f"results/{name}.json").read_text()) for name in NAMES}
    made = {one["name"]: one["facts"] for one in files["making-mnist"]["results"]}
    assert set(made) == {"dgn", "fgsm-plain-128"}
    for facts in made.values():
        assert facts["linf"] <= 0.3 + 1e-6
        assert 0 <= facts["accuracy"] <= 1
    losses = [one["facts"]["loss"] for one in files["training-mnist"]["results"]]
    assert np.isfinite(losses).all()
    assert files["making-mnist"]["machine"]["threads"] >= 1
    page = (out / "RESULTS.md").read_text()
    assert page == report.markdown(report.load(out / "results"))
    assert str(root) not in page + json.dumps(files), "no path of a machine in the results"


NAMES = ("making-mnist", "training-mnist")


def test_every_contender_can_be_built_here(root: Path) -> None:
    """In this process, where what takes long is imported already; libraries where they are there."""
    import importlib

    built = set()
    for one in [*making.contenders(root, "mnist", True), *peaks.contenders(root, ["mnist"], True)]:
        module, _, function = one.build.partition(":")
        try:
            work = getattr(importlib.import_module(module), function)(**one.options)
        except ImportError:
            assert one.optional
            continue
        facts = work.judge(work.call())
        built.add(one.name)
        if "flops" not in facts and module == "benchmarks.making":
            assert facts["linf"] <= 0.3 + 1e-6
            assert 0 <= facts["accuracy"] <= 1
        elif module == "benchmarks.peaks" and "precision" not in one.options:
            assert facts["flops"] % peaks.forward_flops("mnist") == 0
    assert built >= {"dgn", "fgsm-art", "pgd-art", "pgd-plain-128", "training-mnist"}


def test_memory_is_measured_in_fresh_processes(root: Path) -> None:
    first, second = memory.measure(root, [100, 150], scratch=root, dataset="mnist")
    assert (first["count"], second["count"]) == (100, 150)
    for one in (first, second):
        assert 2**26 < one["facts"]["peak_bytes"] < 2**33
    assert not list(root.glob("deepcustom-bench-*")), "what it wrote is removed"


def test_memory_checks_the_disk_first(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"images take .* GB .*: name another folder with --scratch"
    ):
        memory.measure(root, [10**12], scratch=root, dataset="mnist")
    with pytest.raises(InputError, match=r"missing is no folder: name another with --scratch"):
        memory.measure(root, [1], scratch=root / "missing", dataset="mnist")
    assert memory.room(1, (3, 32, 32)) == 2 * (3072 + 1 + 8) + 4 * 3072


def test_peak_memory_is_this_programs_alone(stubs: Path) -> None:
    hog = torch.ones(2**26)  # 256 MiB besides torch itself, which a child must not inherit
    mine = memory.peak_memory()
    assert mine > 2**28
    (stubs.parent / "peaky.py").write_text(
        "from benchmarks.worker import Work\n"
        "from benchmarks.memory import peak_memory\n"
        "def build():\n    return Work(lambda: None, 1, lambda _: {'peak': peak_memory()})\n"
    )
    child = once(Contender("child", "child", "peaky:build"))
    assert child["facts"]["peak"] < 2**28
    assert len(hog)


def test_inputs_are_loaded_as_the_stages_load_them(root: Path) -> None:
    own = inputs.Inputs(root, "mnist")
    x, y = own.test(30)
    assert x.shape == (30, 1, 28, 28)
    assert y.tolist() == [n % 10 for n in range(30)]
    net = own.target_net(FLOAT32)
    torch.testing.assert_close(own.plain_target_net()(x), net(x))
    assert not any(p.requires_grad for p in net.parameters())
    assert all(p.requires_grad for p in own.plain_target_net().parameters())
    with pytest.raises(InputError, match="999 test images wanted, 120 are there"):
        own.test(999)
