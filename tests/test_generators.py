"""The comparison of generators: its variants, what it measures, and a page made of results alone."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_fixtures import ROOT
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepcustom.attacks.threat import ThreatModel
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import save_spec
from deepcustom.data.sources import find_source
from deepcustom.training.compute import FLOAT32
from deepcustom.training.epochs import epochs_kept
from deepcustom.training.nets.base import Architecture, Classifier, Conditional, build
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.nets.resnet import ResNet
from deepcustom.training.nets.resnet18 import ResNet18
from deepcustom.training.nets.unet import UNetConditional
from deepcustom.training.weights import save_network

sys.path.insert(0, str(ROOT))

from benchmarks.generators import __main__ as command
from benchmarks.generators import page, trying, variants
from benchmarks.generators.__main__ import main

RESULTS = ROOT / "benchmarks/results/generators"
SHAPE = (3, 32, 32)
PLACES, VARIANTS = variants.read()


# Variants


def test_a_variant_differs_from_base_in_one_thing() -> None:
    base = VARIANTS["base"].model_dump()
    together = {
        "each": {"each", "network", "training"},
        "half-resolution": {"network", "options"},
        "strong": {"options", "training"},
    }
    for name, variant in VARIANTS.items():
        own = variant.model_dump()
        changed = {key for key in own if own[key] != base[key]} - {"varies", "about"}
        allowed = together.get(name) or {"loss", "loss_options"}
        assert len(changed) == (name != "base") or changed <= allowed, name


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_can_be_made(name: str) -> None:
    one = VARIANTS[name]
    net = build(Architecture(one.network, one.options, {"shape": SHAPE, "classes": 10})).eval()
    x = torch.rand(2, *SHAPE)
    g = net(x, torch.tensor([1, 2])) if isinstance(net, Conditional) else net(x)
    assert g.shape == x.shape
    assert isinstance(net, Conditional) != one.each
    assert set(one.against) <= {variants.OWN, *PLACES}


# What is measured


class Brightest(Classifier):
    """Of two classes, 1 where the mean of the first pixel's channels is above a half."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        bright = self.sign * (x[:, :, 0, 0].mean(1) - 0.5)
        return torch.stack([-bright, bright], 1)


def bench(net: Classifier, count: int = 40) -> trying.Bench:
    torch.manual_seed(0)
    x = torch.rand(count, 1, 8, 8)
    y = (x[:, 0, 0, 0] > 0.5).long()
    splits = dict.fromkeys(("train", "val", "test"), (x, y))
    return trying.Bench("it", net, "0" * 32, splits, 2, ThreatModel(0.2), FLOAT32)


def test_what_is_left_is_counted_image_by_image() -> None:
    own = bench(Brightest())
    assert own.left("val", lambda x, y: x) == 1.0
    assert own.left("val", lambda x, y: 1 - x) == 0.0

    def flipped(x: Tensor, y: Tensor) -> Tensor:
        return torch.where((y == 1)[:, None, None, None], 1 - x, x)

    ones = float((own.splits["val"][1] == 1).float().mean())
    assert own.left("val", flipped) == pytest.approx(1 - ones)
    assert own.left("val", lambda x, y: 1 - x, 7) == 0.0


@pytest.mark.parametrize("each", [False, True])
def test_a_generator_is_trained_and_measured(each: bool, tmp_path: Path) -> None:
    """It fools a network that looks at one pixel, and its images stay in the ball."""
    changes: dict[str, Any] = {
        "options": {"widths": [4, 8], "blocks": 0},
        "training": VARIANTS["base"].training.model_copy(
            update={"epochs": 15, "batch_size": 10, "learning_rate": 0.01}
        ),
    }
    variant = VARIANTS["each" if each else "base"].model_copy(update=changes)
    own = bench(Brightest())
    other = bench(Brightest(-1.0))
    others = {"own": own, "other": trying.Bench(**{**vars(other), "md5": "1" * 32})}
    found = trying.tried(variant, own, others, tmp_path / "kept")
    assert found["val"] == found["test"] < 0.75
    assert found["shown_to"] == {"other": pytest.approx(1 - found["test"], abs=0.05)}
    assert len(found["epochs_val"]) == 15
    assert found["mflop"] > 0
    assert list((tmp_path / "kept").rglob("*.safetensors"))  # until the results are written


def test_a_second_pass_goes_on_from_the_first_and_stays_in_the_ball() -> None:
    own = bench(Brightest())
    x, y = own.splits["test"]

    class Up:
        def generate(self, x: Tensor, y: Tensor, threat: ThreatModel, **_: Any) -> Tensor:
            return threat.project(x + 0.15, x)

    once, twice = (trying.passes(Up(), x, y, own, count) for count in (1, 2))  # type: ignore[arg-type]
    torch.testing.assert_close(once, (x + 0.15).clamp(max=1))
    torch.testing.assert_close(twice, (x + 0.2).clamp(max=1))


def test_several_networks_are_one_whose_logits_are_their_mean() -> None:
    x = torch.rand(3, 1, 8, 8)
    mean = trying.Mean([Brightest(), Brightest(3.0)])
    torch.testing.assert_close(mean(x), Brightest(2.0)(x))


def test_attacks_that_look_at_the_gradient_cost_their_passes() -> None:
    """A convolution of 3 x 3 and a dense layer, forth and back to the image."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 2))

    class Small(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            return out

    own = bench(Small().eval().requires_grad_(False))
    found = trying.reference(own)["attacks"]
    forward = 2 * (64 * 4 * 9 + 256 * 2) / 1e6
    assert found["clean"]["mflop"] == 0
    assert found["fgsm"]["mflop"] == pytest.approx(2 * forward, abs=0.005)
    assert found["pgd-20"]["mflop"] == pytest.approx(40 * forward, abs=0.1)


def test_prices_are_those_that_the_docs_tell() -> None:
    """Of a pass through each, counted on its architecture; FGSM goes forth and back."""

    def million(net: nn.Module, *given: Tensor) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.eval()(*given)
        return float(counter.get_total_flops() / 1e6)

    x, y = torch.rand(1, *SHAPE), torch.tensor([3])
    text = " ".join((ROOT / "docs/speed.md").read_text().split())
    generator = million(UNetConditional(SHAPE, 10), x, y)
    assert f"that of a new project takes {generator:.0f} million operations" in text
    cnn, small, large = (
        2 * million(net, x) for net in (Cifar10Classifier(), ResNet(SHAPE, 10), ResNet18(SHAPE, 10))
    )
    assert (
        f"FGSM takes {cnn:.0f} million on the study's CNN, {small:.0f} million on a ResNet-20, "
        f"and {round(large, -2):,.0f} million on a ResNet-18"
    ) in text


# The command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with an untrained CIFAR-10 network and a few random images."""
    torch.manual_seed(0)
    spec = find_source("cifar10").spec
    (tmp_path / "models/target").mkdir(parents=True)
    save_network(tmp_path / "models/target/cifar10.safetensors", Cifar10Classifier(), {})
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for name in ("train", "val", "test"):
        x = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8).numpy()
        y = torch.arange(20).remainder(10).to(torch.uint8).numpy()
        Split.whole(x, y).save(tmp_path / f"data/prepared/cifar10/{name}")
    save_spec(spec, tmp_path / "data/prepared/cifar10/dataset.json")
    return tmp_path


def test_an_interrupt_while_it_measures_costs_the_last_epoch_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--root", str(root), "--out", str(root / "out"), "--on", "cnn", "--quick"]
    words += ["--only", "widths-8-16-32"]
    monkeypatch.setattr(command, "UNFINISHED", root / "unfinished")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trying, "_mflop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    file = root / "out/results/generators/cnn/widths-8-16-32.json"
    assert not file.exists()
    begun: list[int] = []
    after = trying.train_conditional

    def counted(*given: Any) -> Any:
        begun.append(epochs_kept(given[-1].checkpoint))
        return after(*given)

    monkeypatch.setattr(trying, "train_conditional", counted)
    assert main(words) == 0
    assert begun == [1]
    assert file.exists()
    assert not list((root / "unfinished").rglob("*.safetensors"))


def test_a_run_writes_what_it_finds_and_does_not_repeat_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / "out"
    words = ["--root", str(root), "--out", str(out), "--on", "cnn", "--quick"]
    assert main([*words, "--only", "reference", "widths-8-16-32"]) == 0
    said = capsys.readouterr().out
    assert "cnn widths-8-16-32: val" in said
    files = sorted(one.name for one in (out / "results/generators/cnn").iterdir())
    assert files == ["reference.json", "widths-8-16-32.json"]
    assert "| widths-8-16-32 | width | half as wide | " in (out / "GENERATORS.md").read_text()
    assert (out / "generators.png").read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--only", "reference", "widths-8-16-32", "both"]) == 0
    said = capsys.readouterr().out
    assert "val" not in said
    assert "left out: both on cnn, since resnet20 is not there" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--only", "wider"], "error: --only wider: want reference, base, "),
        (["--on", "vgg"], "error: --on vgg: want cnn, resnet20"),
        (["--on", "cnn"], "error: no trained network for cnn: benchmarks/README.md says how to"),
    ],
)
def test_what_is_not_there_is_one_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "--out", str(tmp_path), *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


# The page


def tried(name: str, val: float, mflop: float, **changes: Any) -> dict[str, Any]:
    one = VARIANTS[name].model_dump(mode="json")
    figures = {"variant": name, "val": val, "test": val + 0.01, "mflop": mflop, "parameters": 1}
    about = {"classifier": "it", "classifier_md5": "0" * 32, "seconds": 1.0, "shown_to": {}}
    return {**one, **figures, **about, **changes}


def test_the_page_says_what_matters_from_the_strongest_to_the_weakest() -> None:
    said = page.sentences(
        {
            "reference": {"attacks": {"fgsm": {"val": 0.05, "mflop": 20.0}}},
            "base": tried("base", 0.3, 25.0),
            "blocks-0": tried("blocks-0", 0.305, 12.5),
            "epochs-8": tried("epochs-8", 0.2, 25.0),
            "half-resolution": tried("half-resolution", 0.4, 50.0),
        }
    )
    assert said == [
        "`epochs-8` (schedule) leaves 10.0 points fewer than `base`, at 1 times the price.",
        "`blocks-0` (depth) makes no difference above a point, at 0.5 times the price.",
        "`half-resolution` (resolution) leaves 10.0 points more than `base`, at 2 times the price.",
        "The strongest, `epochs-8`, leaves 20.0 % of val at 25 MFLOP; FGSM leaves 5.0 % at 20 MFLOP.",
    ]


def test_the_committed_page_and_table_are_made_from_the_committed_results() -> None:
    found = page.load(ROOT / "benchmarks/results/generators")
    assert found, "no results are committed"
    again = "python -m benchmarks.generators --render"
    assert (ROOT / "benchmarks" / page.PAGE).read_text() == page.markdown(found), again
    assert (ROOT / "benchmarks" / page.TABLE).read_text() == page.rows(found), again
    rows = list(csv.DictReader((ROOT / "benchmarks" / page.TABLE).open()))
    assert {row["on"] for row in rows} == set(found)


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("*.json")), ids=lambda file: file.stem)
def test_a_committed_result_is_that_of_the_variant_of_today(file: Path) -> None:
    """What was run is what ``variants.yaml`` says; a quick run is not committed."""
    found = json.loads(file.read_text())
    assert not found["quick"]
    assert found["on"] == file.parent.name
    if file.stem != "reference":
        wanted = VARIANTS[file.stem].model_dump(mode="json")
        assert {key: found[key] for key in wanted} == wanted
        assert 0 <= found["val"] <= 1


def test_the_docs_say_how_the_default_loss_compares() -> None:
    text = " ".join((ROOT / "docs/losses.md").read_text().split())
    left = [
        [
            f"{100 * json.loads((RESULTS / place / f'{name}.json').read_text())['val']:.1f}"
            for place in ("cnn", "resnet20")
        ]
        for name in ("base", "cross-entropy")
    ]
    (soft, other) = left
    assert f"it leaves {soft[0]} % of `val` on the study's CNN and {soft[1]} % on" in text
    assert f"cross entropy alone leaves {other[0]} % and {other[1]} %" in text
    assert all(float(a) < float(b) for a, b in zip(soft, other, strict=True))


def test_what_matters_is_what_the_results_say() -> None:
    """The list in benchmarks/README.md, in points of val left, against the study's CNN."""
    found = {
        file.stem: json.loads(file.read_text())
        for file in (ROOT / "benchmarks/results/generators/cnn").glob("*.json")
    }
    text = " ".join((ROOT / "benchmarks/README.md").read_text().split())
    base = found["base"]

    def points(name: str) -> int:
        return round(abs(100 * (found[name]["val"] - base["val"])))

    for said in (
        f"Eight epochs instead of two leave {points('epochs-8')} points fewer",
        f"Twice as wide leaves {points('widths-32-64-96')} points fewer, at three times the price",
        f"half as wide {points('widths-8-32-64')} points more",
        f"2 pixels leaves {points('half-resolution')} points more",
        f"The soft margin leaves {points('cross-entropy')} points fewer than cross entropy",
        f"none leaves {points('blocks-0')} points more",
        f"told the label** leaves {points('each')} points fewer than one for each class",
        f"doubles the price and gains {points('two-passes')} points",
        f"The CNN pays with {points('both')} points",
    ):
        assert said in text
    longer = 100 * (found["epochs-8"]["val"] - found["epochs-8-rate-4e-3"]["val"])
    assert f"it leaves {points('rate-4e-3')} points fewer after two epochs" in text
    assert f"and {longer:.0f} fewer after eight" in text
    assert found["blocks-3"]["val"] > base["val"]
    assert 2.5 < found["widths-32-64-96"]["mflop"] / base["mflop"] < 3.5
    elsewhere = {
        name: 100 * one["shown_to"]["resnet20"]
        for name, one in found.items()
        if "resnet20" in one.get("shown_to", {}) and name != "both"
    }
    least, most = min(elsewhere.values()), max(elsewhere.values())
    both = 100 * found["both"]["shown_to"]["resnet20"]
    assert f"leaves the ResNet-20 {both:.0f} %" in text
    assert f"leaves it {least:.0f} to {most:.0f} %" in text
