"""The package as a library: tensors in, plain results out, on scikit-learn's digits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import deepcustom
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.dgn import DGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, LossError, UnknownNameError
from deepcustom.evaluation.results import parse_csv
from deepcustom.evaluation.victim import Counted
from deepcustom.library.given import gathered
from deepcustom.library.starting import Start, radius
from deepcustom.training.nets.anyshape import AnyConditional, AnyGenerator
from deepcustom.training.nets.base import Architecture

EPS = "1/10"
CHEAP: dict[str, Any] = {
    "whitebox": {"pgd": {"max_iter": 4, "num_random_init": 1}},
    "surrogate": {"max_iter": 2},
    "autoattack": {"max_iter": 4, "targets": 2, "queries": 20},
    "adaptive": {"training": {"epochs": 1}},
    "curves": {"n": 10, "radii": [0, 1, 4], "steps": [1, 3]},
}


class Tiny(nn.Module):
    """No ReLU: nothing here names or finds its hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(64, 24), nn.BatchNorm1d(24)
        self.outer = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.norm(self.inner(x.flatten(1)))))


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    """1,797 real digits (N, 1, 8, 8) in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return torch.from_numpy(raw.images).float().div(16).unsqueeze(1), torch.from_numpy(raw.target)


@pytest.fixture(scope="module")
def train(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0][:600], data[1][:600]


@pytest.fixture(scope="module")
def test(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0][600:720], data[1][600:720]


def learned(train: tuple[Tensor, Tensor], seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    net = Tiny()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(train[0]), train[1]).backward()
        optimiser.step()
    return net


@pytest.fixture(scope="module")
def net(train: tuple[Tensor, Tensor]) -> Tiny:
    """A network as training leaves it: in training mode, its weights free."""
    return learned(train)


@pytest.fixture(scope="module")
def bank(net: Tiny, train: tuple[Tensor, Tensor]) -> DGNBank:
    made = deepcustom.train_bank(
        net,
        *train,
        EPS,
        epochs=16,
        settings={"generator": "per_class", "training": {"batch_size": 16}},
    )
    assert isinstance(made, DGNBank)
    return made


@pytest.fixture(autouse=True)
def nothing_is_left_behind(net: Tiny) -> Iterator[None]:
    """The network stays as it was."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    yield
    assert net.training
    assert all(weight.requires_grad for weight in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Scoring


@pytest.fixture(scope="module")
def alone(net: Tiny, test: tuple[Tensor, Tensor]) -> Any:
    return deepcustom.evaluate(net, *test, EPS, n=60, settings=CHEAP, name="tiny")


def test_a_network_alone_is_scored_and_what_is_left_out_is_said(
    alone: Any, net: Tiny, test: tuple[Tensor, Tensor]
) -> None:
    assert list(alone.left_out) == ["transfer", "blackbox", "adaptive"]
    assert {one.protocol for one in alone.results} == {"transfer", "whitebox", "blackbox", "worst"}
    assert alone.eps == pytest.approx(0.1)
    assert len(alone.attacked) == len(alone.robust) == 60
    net.eval()
    right = net(test[0]).argmax(1) == test[1]
    net.train()
    assert torch.equal(alone.stands["clean"]["clean"], right[alone.attacked])
    assert alone.clean == pytest.approx(float(right[alone.attacked].double().mean()), abs=1e-6)
    assert alone.worst == pytest.approx(float(alone.robust.double().mean()), abs=1e-6)
    assert alone.worst < alone.clean
    assert alone.accuracy("transfer", "clean") == pytest.approx(
        float(right.double().mean()), abs=1e-6
    )
    assert len(alone.checks) >= 14
    assert {point.curve for point in alone.points} == {"eps", "steps"}


def test_what_is_found_is_plain_data_and_prints_well(alone: Any, tmp_path: Path) -> None:
    tree = json.loads(json.dumps(alone.to_dict(), allow_nan=False))
    assert tree["network"] == "tiny"
    assert sum(tree["stands"]["blackbox"]["square"]) == alone.stands["blackbox"]["square"].sum()
    assert list(parse_csv(alone.to_csv().encode(), "csv")) == list(alone.results)
    for text in (repr(alone), alone._repr_markdown_(), alone._repr_html_()):
        assert f"{100 * alone.worst:.1f}" in text
        assert "left out: adaptive" in text
        assert "fail: pgd-reach" in text or "warn: pgd-reach" in text
    assert max(map(len, repr(alone).splitlines()[:12])) < 100
    assert alone._repr_html_().count("<tr>") == len(alone.results) + 1
    alone.save(tmp_path / "found")
    names = {file.name for file in (tmp_path / "found").iterdir()}
    assert names == {"results.csv", "checks.json", "curves.csv", "threat.json"}
    assert (tmp_path / "found/results.csv").read_text() == alone.to_csv()


def test_with_a_bank_and_other_networks_every_protocol_is_asked(
    net: Tiny, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], bank: DGNBank
) -> None:
    other = learned(train, 1)
    found = deepcustom.evaluate(
        net, *test, EPS, n=40, bank=bank, against={"other": other}, settings=CHEAP
    )
    assert found.left_out == {}
    attacks = {(one.protocol, one.attack) for one in found.results}
    assert {("transfer", "bank"), ("blackbox", "from-other"), ("adaptive", "dgn-any")} <= attacks
    rows = found.attacked
    _, success = deepcustom.attack(net, test[0][rows], test[1][rows], EPS, bank)
    assert success is not None
    stands = found.stands["transfer"]["bank"] & found.stands["clean"]["clean"]
    assert torch.equal(stands, found.stands["clean"]["clean"] & ~success)
    # No image is left to adapt the bank on.
    rest = deepcustom.evaluate(net, *test, EPS, bank=bank, settings=CHEAP)
    assert list(rest.left_out) == ["blackbox", "adaptive"]
    why = "no images left to adapt the DGNs on: hand over train="
    assert rest.left_out["adaptive"] == why
    assert f"left out: adaptive: {why}" in repr(rest)
    whole = deepcustom.evaluate(net, *test, EPS, bank=bank, train=train, settings=CHEAP)
    assert list(whole.left_out) == ["blackbox"]


def test_an_interrupted_call_goes_on_and_ends_alike(
    net: Tiny,
    test: tuple[Tensor, Tensor],
    alone: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[int] = []
    real = Counted.forward

    def counting(self: Counted, x: Tensor) -> Tensor:
        shown.append(len(x))
        if len(shown) > limit:
            raise KeyboardInterrupt
        return real(self, x)

    monkeypatch.setattr(Counted, "forward", counting)

    def again() -> Any:
        return deepcustom.evaluate(
            net, *test, EPS, n=60, settings=CHEAP, name="tiny", keep=tmp_path / "kept"
        )

    limit = 60
    with pytest.raises(KeyboardInterrupt):
        again()
    limit, first = 10**9, len(shown)
    assert again().to_dict() == alone.to_dict()
    second = len(shown) - first
    shown.clear()
    assert again().to_dict() == alone.to_dict()
    assert len(shown) < 3 < second
    changed = learned(test, 2)
    shown.clear()
    deepcustom.evaluate(
        changed, *test, EPS, n=60, settings=CHEAP, name="tiny", keep=tmp_path / "kept"
    )
    assert len(shown) > second
    # Of two networks of one name, none removes what the other has finished.
    shown.clear()
    assert again().to_dict() == alone.to_dict()
    assert len(shown) < 3


# Training and attacking


def test_a_bank_fools_the_network_and_comes_back_from_its_file(
    net: Tiny, test: tuple[Tensor, Tensor], bank: DGNBank, tmp_path: Path
) -> None:
    x_adv, success = deepcustom.attack(net, *test, EPS, bank)
    assert success is not None
    assert success.float().mean() > 0.15
    ThreatModel(0.1).verify(x_adv.numpy(), test[0].numpy())
    bank.save(tmp_path / "bank.safetensors")
    back = deepcustom.load_bank(tmp_path / "bank.safetensors", test[0])
    same, none = deepcustom.attack(back, *test, EPS)
    assert none is None
    assert torch.equal(same, x_adv)
    with pytest.raises(InputError, match=r"want images \(N, C, H, W\)"):
        deepcustom.load_bank(tmp_path / "bank.safetensors", test[1])


@pytest.mark.parametrize("name", ["AnyGenerator", "AnyConditional"])
def test_a_file_of_earlier_versions_still_loads(
    name: str, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Its generators have another architecture than those of today, and the file does not name it."""
    torch.manual_seed(0)
    x, y = data[0][:6], torch.arange(6) % 3
    if name == "AnyConditional":
        before: DGN = ConditionalDGN(
            "images", "nce", per_class=False, generator=AnyConditional(x.shape[1:], 3).eval()
        )
    else:
        each = [AnyGenerator(x.shape[1:]).eval() for _ in range(3)]
        before = DGNBank("images", "nce", "perturbation", each)
    before.save(tmp_path / "bank.safetensors")  # type: ignore[attr-defined]
    back = deepcustom.load_bank(tmp_path / "bank.safetensors", x)
    found = deepcustom.attack(back, x, y, EPS).x_adv
    saved = type(
        before
    ).load(  # type: ignore[attr-defined]
        tmp_path / "bank.safetensors",
        Architecture(f"deepcustom.training.nets.anyshape:{name}", facts={"shape": x.shape[1:]}),
        "images",
        3,
        torch.device("cpu"),
    )
    torch.testing.assert_close(found, deepcustom.attack(saved, x, y, EPS).x_adv)


def test_one_dgn_is_told_the_label(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 24))
    x, y = data[0][:60], torch.arange(60) % 24
    made = deepcustom.train_bank(wide, x, y, EPS, epochs=1)
    assert isinstance(made, ConditionalDGN)
    made.save(tmp_path / "one.safetensors")
    back = deepcustom.load_bank(tmp_path / "one.safetensors", x)
    assert back.classes == 24
    assert torch.equal(*(deepcustom.attack(one, x, y, EPS).x_adv for one in (made, back)))


def test_a_loss_that_requires_an_analysis_gets_it(
    train: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    relu = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    options = {"custom_loss_constant": 0.5}
    made = deepcustom.train_bank(relu, *train, EPS, "lrp", options=options, epochs=1)
    assert made.loss == "lrp"
    with pytest.raises(InputError, match=r"^options of loss 'lrp'.custom_loss_constant is missing"):
        deepcustom.train_bank(relu, *train, EPS, "lrp", epochs=1)
    with pytest.raises(UnknownNameError, match="unknown loss 'best': choose from lrp, nce"):
        deepcustom.train_bank(relu, *train, EPS, "best")
    with pytest.raises(LossError, match="importing 'no_such' failed"):
        deepcustom.train_bank(relu, *train, EPS, "no_such:Loss")


@pytest.mark.parametrize("method", ["fgsm", "pgd", "apgd"])
def test_attacks_stay_in_the_ball_and_say_what_falls(
    net: Tiny, test: tuple[Tensor, Tensor], method: Any
) -> None:
    budget = {} if method == "fgsm" else {"max_iter": 5, "restarts": 1}
    found = deepcustom.attack(net, *test, EPS, method, **budget)
    ThreatModel(0.1).verify(found.x_adv.numpy(), test[0].numpy())
    net.eval()
    before, after = (net(x).argmax(1) == test[1] for x in (test[0], found.x_adv))
    net.train()
    assert found.success is not None
    assert torch.equal(found.success, before & ~after)
    assert found.success.float().mean() > 0.2
    assert f"{int(found.success.sum())} of 120" in repr(found)
    again = deepcustom.attack(net, *test, EPS, method, **budget)
    assert torch.equal(again.x_adv, found.x_adv)


@pytest.mark.parametrize("way", ["madry", "online", "goodfellow"])
def test_a_hardened_copy_withstands_more(
    net: Tiny,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    bank: DGNBank,
    way: Any,
) -> None:
    with_bank = {"bank": bank} if way == "goodfellow" else {}
    found = deepcustom.harden(net, *train, EPS, way, epochs=6, val=test, **with_bank)
    hard, history = found
    assert type(hard) is Tiny
    assert not hard.training
    assert len(history["val_accuracy"]) == 6
    assert "hardened for 6 epochs" in repr(found)
    against: Any = bank if way == "goodfellow" else "pgd"
    budget = {} if way == "goodfellow" else {"max_iter": 10, "restarts": 1}
    fallen = [deepcustom.attack(one, *test, EPS, against, **budget).success for one in (net, hard)]
    assert fallen[1].sum() < fallen[0].sum()


def test_training_goes_on_where_it_was_interrupted(
    net: Tiny,
    train: tuple[Tensor, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deepcustom.hardening import madry

    whole = deepcustom.harden(net, *train, EPS, epochs=4).net
    real, steps = madry.inner_pgd, []

    def stopping(*given: Any, **more: Any) -> Tensor:
        steps.append(1)
        if len(steps) > 50:
            raise KeyboardInterrupt
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(madry, "inner_pgd", stopping)
        with pytest.raises(KeyboardInterrupt):
            deepcustom.harden(net, *train, EPS, epochs=4, keep=tmp_path / "kept")
    capsys.readouterr()
    rest = deepcustom.harden(net, *train, EPS, epochs=4, keep=tmp_path / "kept").net
    assert "resumed after epoch 2" in capsys.readouterr().out
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not list((tmp_path / "kept").iterdir())


def test_the_users_random_numbers_go_on(net: Tiny) -> None:
    calls = (
        lambda: deepcustom.evaluate(net, X, Y, EPS, settings=CHEAP),
        lambda: deepcustom.attack(net, X, Y, EPS, max_iter=2),
        lambda: deepcustom.harden(net, X, Y, EPS, "online", epochs=1),
        lambda: deepcustom.train_bank(net, X, Y, EPS, epochs=1),
    )
    for call in calls:
        luck, dice = torch.get_rng_state(), np.random.get_state()[1].copy()
        call()
        assert torch.equal(torch.get_rng_state(), luck)
        assert np.array_equal(np.random.get_state()[1], dice)


# What is handed over


def test_images_come_in_every_usual_form(data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:30], data[1][:30]
    whole = gathered(x, y)
    assert whole.x.dtype == np.float32
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    forms = [(x.double(), y.int()), (x.numpy(), y.tolist()), (loader, None), (loader.dataset, None)]
    for images, labels in forms:
        found = gathered(images, labels)
        assert np.array_equal(found.x, whole.x)
        assert np.array_equal(found.y, whole.y)
    bytes_ = (x * 255).round().to(torch.uint8)
    assert gathered(bytes_, y).x.dtype == np.uint8
    few = gathered(bytes_, y).on(deepcustom.FLOAT32)[0]
    assert torch.equal(few[:], bytes_.float() / 255)


def test_normalisation_is_put_in_front(net: Tiny, test: tuple[Tensor, Tensor]) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x * 0.5 + 0.25)

    plain = deepcustom.attack(net, *test, EPS, "fgsm")
    told = deepcustom.attack(Shifted(), *test, EPS, "fgsm", mean=[0.25], std=[0.5])
    torch.testing.assert_close(told.x_adv, plain.x_adv)
    arrays = {"mean": np.array([0.25]), "std": torch.tensor([0.5])}
    again = deepcustom.attack(Shifted(), *test, EPS, "fgsm", **arrays)
    assert torch.equal(again.x_adv, told.x_adv)
    two = {"mean": np.array([0.25, 0.25]), "std": np.array([0.5, 0.5])}
    with pytest.raises(
        InputError, match=r"^mean and std: want 1 numbers each, std above 0, and mean"
    ):
        deepcustom.attack(net, *test, EPS, "fgsm", **two)
    with pytest.raises(
        InputError, match=r"^mean and std: want 1 numbers each, std above 0, and mean"
    ):
        deepcustom.attack(net, *test, EPS, "fgsm", mean=[0.1, 0.2], std=[1.0, 1.0])


def test_an_exported_program_is_a_network_too(net: Tiny, test: tuple[Tensor, Tensor]) -> None:
    import copy

    still = copy.deepcopy(net).eval()
    shapes = ({0: torch.export.Dim("images")},)
    program = torch.export.export(still, (test[0][:2],), dynamic_shapes=shapes)
    plain = deepcustom.attack(net, *test, EPS, "fgsm")
    for one in (program, program.module()):
        found = deepcustom.attack(one, *test, EPS, "fgsm")
        torch.testing.assert_close(found.x_adv, plain.x_adv)
    with pytest.raises(InputError, match="an exported program, which cannot be trained"):
        deepcustom.harden(program, *test, EPS)


class Broken(Dataset[Any]):
    """A data set whose files are gone."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> Any:
        raise OSError("no such file")


X, Y = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": None}, r"eps None: want a number above 0, at most 1, such as 0.1 or 8/255"),
        ({"eps": "8/0"}, r"eps '8/0': want a number"),
        ({"eps": True}, r"eps True: want a number"),
        ({"y": None}, r"y is missing: x needs labels"),
        ({"x": X * 255}, r"x has values from .* to .*, want \[0, 1\]"),
        ({"x": X - 1}, r"want \[0, 1\]; a network that takes normalised images is told their mean"),
        ({"x": X * float("nan")}, r"x has values from nan to nan, want \[0, 1\]"),
        ({"x": X.long()}, r"x is int64, want uint8, or floating point in \[0, 1\]"),
        ({"x": X[:, 0]}, r"x has shape \(20, 8, 8\), want images \(N, C, H, W\)"),
        ({"y": Y[:5]}, r"labels of x: int64 of shape \(5,\), want integers of shape \(20,\)"),
        ({"y": nn.functional.one_hot(Y)}, r"want integers of shape \(20,\)"),
        ({"y": Y - 1}, r"labels of x: -1 is below 0"),
        ({"y": Y.long() + 70000}, r"labels of x go up to 7\d+, want at most 65535"),
        ({"y": Y + 1}, r"net gives 10 logits, and labels go up to 10"),
        ({"net": "tiny"}, r"net is a str, want a torch.nn.Module"),
        ({"net": nn.Linear(3, 10)}, r"refuses (2 )?images of shape \(1, 8, 8\): RuntimeError"),
        ({"device": "gpu"}, r"compute.device: should be 'auto', 'cpu' or 'cuda'"),
        ({"settings": {"autoatack": {}}}, r"settings.autoatack is not a known key"),
        ({"settings": {"n": 0}}, r"settings.n: should be greater than or equal to 1"),
        ({"n": 0}, r"settings.n: should be greater than or equal to 1"),
        ({"y": [[0], [0, 1]]}, r"labels of x: want a tensor or an array: ValueError: setting"),
        (
            {"x": DataLoader([(X[0], 0), (X[0, :, :4], 1)], batch_size=1), "y": None},
            r"x has images of shape \(1, 8, 8\) and \(1, 4, 8\), want one shape",
        ),
        ({"x": DataLoader([{"image": X[0]}]), "y": None}, r"x: the loader gives dict, want"),
        (
            {"x": DataLoader([(object(), 0)]), "y": None},
            r"x: reading images failed: TypeError: def",
        ),
        ({"x": TensorDataset(X, Y[:, None]), "y": None}, r"labels of x: int64 of shape \(20, 1\)"),
        ({"x": X.to_sparse()}, r"x: want a tensor or an array: TypeError: can't convert Sparse"),
        ({"x": X.to("meta")}, r"x: want a tensor or an array: NotImplementedError"),
        (
            {"x": DataLoader(TensorDataset(X, Y), batch_size=None), "y": None},
            r"x: the loader gives single values, want batches",
        ),
        (
            {"x": DataLoader([(X[0], Y[0]), (X[0], Y[:2])], batch_size=1), "y": None},
            r"x has labels of shape \(\) and \(2,\), want one shape",
        ),
        ({"mean": 0.5, "std": 0.5}, r"mean 0.5: want one number for each channel"),
        ({"mean": ["a"], "std": [1]}, r"mean \['a'\]: want one number for each channel"),
        ({"against": Tiny()}, r"against: want networks in a list, or in a dictionary by their"),
        ({"x": Broken(), "y": None}, r"x: reading images failed: OSError: no such file"),
        ({"train": Broken()}, r"train: reading images failed: OSError: no such file"),
        ({"x": DataLoader(TensorDataset(X, Y))}, r"x is a loader, which brings its labels"),
        ({"bank": "nce"}, r"bank: want DGNs of 10 classes, as train_bank makes them"),
        ({"train": (X,)}, r"train has 1 parts, want \(images, labels\)"),
        ({"name": "other-1", "against": [Tiny()]}, r"one of them is called 'other-1'"),
        ({"against": {"two": nn.Sequential(nn.Flatten(), nn.Linear(64, 12))}}, r"want 10"),
    ],
)
def test_what_cannot_be_used_is_one_line(net: Tiny, change: dict[str, Any], message: str) -> None:
    given = {"net": net, "x": X, "y": Y, "eps": EPS, **change}
    with pytest.raises(InputError, match=message) as caught:
        deepcustom.evaluate(given.pop("net"), given.pop("x"), **given)
    assert "\n" not in str(caught.value)
    assert "params.yaml" not in str(caught.value)


def test_ways_and_methods_that_are_not_there_are_named(net: Tiny, bank: DGNBank) -> None:
    with pytest.raises(UnknownNameError, match="unknown method 'cw': choose from fgsm, pgd, apgd"):
        deepcustom.attack(net, X, Y, EPS, "cw")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="way of hardening 'trades': choose from madry"):
        deepcustom.harden(net, X, Y, EPS, "trades")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="way goodfellow needs a bank"):
        deepcustom.harden(net, X, Y, EPS, "goodfellow")
    with pytest.raises(InputError, match="way madry takes no bank"):
        deepcustom.harden(net, X, Y, EPS, bank=bank)
    with pytest.raises(InputError, match="bank: want DGNs, as train_bank makes them"):
        deepcustom.harden(net, X, Y, EPS, "goodfellow", bank="nce")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown attack 'whitebox/cw'"):
        deepcustom.evaluate(net, X, Y, EPS, settings=CHEAP).accuracy("whitebox", "cw")


# The settings that all begins with


def test_a_new_project_and_the_library_begin_alike() -> None:
    import yaml

    from deepcustom.pipeline.start.images import Images
    from deepcustom.pipeline.start.starter import NETWORKS, Answers, params_text, split_sizes

    images = Images("arrays", 6000, 900, 10, 1, (28, 28))
    answers = Answers("a", "a", "data/own/a", NETWORKS["small"], "8/255")
    tree = yaml.safe_load(params_text(answers, images))
    sizes = split_sizes(images)
    start = Start((1, 28, 28), 10, "8/255", sizes["train"], sizes["test"])
    assert start.recipes() == tree["recipes"]
    assert (start.training()["epochs"], start.training()["batch"]) == (
        tree["train_target"]["a"]["epochs"],
        tree["train_target"]["a"]["batch_size"],
    )


@pytest.mark.parametrize(("eps", "value"), [("8/255", 8 / 255), (0.3, 0.3), ("0.1", 0.1), (1, 1.0)])
def test_a_radius_is_a_number_or_a_fraction(eps: Any, value: float) -> None:
    assert radius(eps) == value


def test_the_library_needs_no_dvc_no_mlflow_and_no_project() -> None:
    program = (
        "import sys, deepcustom\n"
        "for name in ('evaluate', 'train_bank', 'attack', 'harden', 'load_bank'):\n"
        "    getattr(deepcustom, name)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('deepcustom.')}\n"
        "assert not rooms & {'pipeline', 'tracking', 'report', 'stages', 'cli'}, rooms\n"
        "assert not {'dvc', 'mlflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Told(nn.Module):
    """As other libraries give it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x.flatten(1), "logits": self.net(x).double()}


def test_outputs_in_a_dict_are_understood_everywhere(
    net: Tiny,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = Told(net)
    found = deepcustom.evaluate(told, *test, EPS, n=30, settings=CHEAP)
    said = capsys.readouterr().out
    assert "note: network: it gives more than logits; those are taken from 'logits'" in said
    assert "note: network: its logits are float64, and are cast to float32" in said
    assert found.clean > 0.8
    plain = deepcustom.evaluate(net, *test, EPS, n=30, settings=CHEAP)
    assert "note:" not in capsys.readouterr().out
    assert found.clean == plain.clean
    few = train[0][:100], train[1][:100]
    attacked = deepcustom.attack(told, test[0][:20], test[1][:20], EPS, method="fgsm")
    assert attacked.x_adv.shape == test[0][:20].shape
    deepcustom.train_bank(told, *few, EPS, epochs=1)
    deepcustom.harden(told, *few, EPS, way="madry", epochs=1)


def test_a_network_that_cannot_be_scored_is_one_line(test: tuple[Tensor, Tensor]) -> None:
    class Mixing(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0))

    with pytest.raises(InputError, match="depends on the other images of the batch"):
        deepcustom.evaluate(Mixing(), *test, EPS, n=30, settings=CHEAP)


# What a network lacks


class Writing(Told):
    """It writes into its images, gives logits with further axes, and takes 7 images at most."""

    def forward(self, x: Tensor) -> Any:
        if len(x) > 7:
            raise ValueError("7 images at most")
        x.mul_(0.5)
        return self.net(x)[:, :, None, None]


class Few(Told):
    """It takes 7 images at most."""

    def forward(self, x: Tensor) -> Any:
        if len(x) > 7:
            raise ValueError("7 images at most")
        return self.net(x)


class Blind(Told):
    """No gradient goes through it."""

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            return self.net(x)


def test_what_a_network_lacks_is_put_around_it_everywhere(
    net: Tiny,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = Writing(net)
    few = train[0][:60], train[1][:60]
    images, labels = test[0].clone(), test[1]
    kept = images.clone()
    found = deepcustom.attack(odd, images, labels, EPS, "fgsm")
    assert torch.equal(images, kept)
    said = capsys.readouterr().out
    assert "note: net: it writes into the images that it is given, so it gets a copy" in said
    assert "note: net: it takes at most 7 images at a time: larger batches are split" in said
    assert found.success is not None
    assert found.success.any()
    deepcustom.train_bank(odd, *few, EPS, epochs=1)
    hard = deepcustom.harden(odd, *few, EPS, epochs=1).net
    assert type(hard) is Writing
    capsys.readouterr()
    deepcustom.harden(Few(net), *few, EPS, epochs=1)
    assert "note: net: it takes at most 7 images at a time" in capsys.readouterr().out
    against = {"odd": odd}
    whole = deepcustom.evaluate(net, *test, EPS, n=30, against=against, settings=CHEAP)
    assert "note: odd: it writes into the images" in capsys.readouterr().out
    assert whole.accuracy("blackbox", "from-odd") <= whole.clean


def test_without_a_gradient_only_a_bank_attacks(
    net: Tiny, test: tuple[Tensor, Tensor], bank: DGNBank
) -> None:
    blind = Blind(net)
    found = deepcustom.attack(blind, *test, EPS, bank)
    same = deepcustom.attack(net, *test, EPS, bank)
    assert found.success is not None
    assert same.success is not None
    assert torch.equal(found.success, same.success)
    none = "no gradient reaches its images .* and {} follows gradients"
    with pytest.raises(InputError, match="net: " + none.format("method pgd")):
        deepcustom.attack(blind, *test, EPS)
    with pytest.raises(InputError, match="net: " + none.format("train_bank")):
        deepcustom.train_bank(blind, *test, EPS, epochs=1)
    with pytest.raises(InputError, match="net: " + none.format("way online")):
        deepcustom.harden(blind, *test, EPS, "online", epochs=1)
    with pytest.raises(InputError, match="odd: " + none.format("making images against it")):
        deepcustom.evaluate(net, *test, EPS, n=30, against={"odd": blind}, settings=CHEAP)


def test_relevance_sees_a_network_that_flattens_by_view(train: tuple[Tensor, Tensor]) -> None:
    """It refuses a batch of no images."""

    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.relu, self.outer = nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(self.relu(self.inner(x.view(x.size(0), -1))))

    torch.manual_seed(0)
    options = {"custom_loss_constant": 0.5}
    made = deepcustom.train_bank(Viewing(), *train, EPS, "lrp", options=options, epochs=1)
    assert made.loss == "lrp"


def test_a_fresh_network_whose_answers_are_all_alike_is_hardened(
    train: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = Tiny()
    nn.init.zeros_(fresh.outer.weight)
    nn.init.zeros_(fresh.outer.bias)
    deepcustom.harden(fresh, train[0][:60], train[1][:60], EPS, epochs=1)
    assert "note:" not in capsys.readouterr().out


def test_no_answer_is_no_right_answer(
    net: Tiny, test: tuple[Tensor, Tensor], bank: DGNBank
) -> None:
    class Silent(Told):
        """It answers no bright image; of nan, argmax makes the label 0."""

        def forward(self, x: Tensor) -> Any:
            bright = x.flatten(1).mean(1, keepdim=True) > 0.32
            return self.net(x).masked_fill(bright, float("nan"))

    silent = Silent(net)
    found = deepcustom.attack(silent, *test, EPS, bank)
    net.eval()
    before, after = (silent(x) for x in (test[0], found.x_adv))
    net.train()
    right, still = (
        (logits.argmax(1) == test[1]) & ~logits.isnan().any(1) for logits in (before, after)
    )
    assert (test[1][before.isnan().any(1) | after.isnan().any(1)] == 0).any()
    assert found.success is not None
    assert torch.equal(found.success, right & ~still)


@pytest.mark.parametrize("call", ["attack", "attack alone", "evaluate", "harden"])
def test_a_bank_of_images_of_another_shape_is_one_line(bank: DGNBank, call: str) -> None:
    flat, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), X.expand(-1, 3, -1, -1)
    calls: dict[str, Callable[[], Any]] = {
        "attack": lambda: deepcustom.attack(flat, x, Y, EPS, bank),
        "attack alone": lambda: deepcustom.attack(bank, x, Y, EPS),
        "evaluate": lambda: deepcustom.evaluate(flat, x, Y, EPS, bank=bank, settings=CHEAP),
        "harden": lambda: deepcustom.harden(flat, x, Y, EPS, "goodfellow", bank=bank),
    }
    with pytest.raises(
        InputError, match=r"the bank's DGNs refuse images of shape \(3, 8, 8\)"
    ) as e:
        calls[call]()
    assert "\n" not in str(e.value)


def test_a_folder_for_finished_work_may_hold_other_things(
    net: Tiny, train: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    few = train[0][:60], train[1][:60]
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "models/empty").mkdir(parents=True)
    save_file({"w": torch.ones(3)}, tmp_path / "models/mine.safetensors")
    (tmp_path / "network.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    deepcustom.train_bank(net, *few, EPS, epochs=1, keep=tmp_path)
    deepcustom.harden(net, *few, EPS, epochs=1, keep=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    deepcustom.evaluate(net, *few, EPS, n=20, settings=CHEAP, keep=tmp_path)
    there = sorted(path for path in tmp_path.rglob("*") if "attacks" not in path.parts)
    assert there == before
    assert any((tmp_path / "attacks").rglob("*.safetensors"))
    assert (tmp_path / "network.json").read_text() == "{}"


@pytest.mark.parametrize("call", ["train_bank", "harden", "evaluate"])
def test_a_folder_for_finished_work_is_tried_before_the_work(
    net: Tiny, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("mine")
    asked: list[int] = []
    monkeypatch.setattr(Tiny, "forward", lambda *_: asked.append(1))
    with pytest.raises(
        InputError, match=r"^keep .*/taken/kept: .*/taken is a file, want a folder$"
    ):
        getattr(deepcustom, call)(net, X, Y, EPS, keep=tmp_path / "taken/kept")
    assert not asked


# What an interrupted training is known by


class AskedError(Exception):
    """Raised where a training would begin."""


Key = Callable[..., str]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Key:
    """Under which name a training would keep finished epochs."""
    from deepcustom.library import bank as banks
    from deepcustom.library import hardening, kept

    def stopping(*given: Any) -> Any:
        raise AskedError(kept.checkpoint(*given).fingerprint)

    for module in (banks, hardening):
        monkeypatch.setattr(module, "checkpoint", stopping)

    def asked(call: Callable[..., Any], *given: Any, **more: Any) -> str:
        with pytest.raises(AskedError) as caught:
            call(*given, keep=tmp_path / "kept", **more)
        return str(caught.value)

    return asked


def test_a_network_that_raises_anything_is_known_all_the_same() -> None:
    from deepcustom.library.kept import known

    class Raising(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not today")

    data = gathered(X, Y)
    names = [known("one", net, data, deepcustom.FLOAT32).source for net in (Raising(), Tiny())]
    assert names[0] != names[1]


@pytest.mark.parametrize("call", [deepcustom.train_bank, deepcustom.harden])
def test_training_goes_on_with_the_same_normalisation_alone(
    net: Tiny, train: tuple[Tensor, Tensor], key: Key, call: Callable[..., Any]
) -> None:
    first, again, other = (
        key(call, net, *train, EPS, mean=[mean], std=[0.5]) for mean in (0.25, 0.25, 0.5)
    )
    assert first == again != other


def test_training_goes_on_with_the_same_forward_alone(
    net: Tiny, train: tuple[Tensor, Tensor], key: Key
) -> None:
    def louder(self: Tiny, x: Tensor) -> Tensor:
        return 2 * Tiny.forward(self, x)

    other = type("Tiny", (Tiny,), {"forward": louder})()
    other.load_state_dict(net.state_dict())
    assert repr(other) == repr(net)
    for call in (deepcustom.train_bank, deepcustom.harden):
        assert key(call, net, *train, EPS) != key(call, other, *train, EPS)


def test_exported_programs_are_told_apart_by_what_they_do(
    train: tuple[Tensor, Tensor], key: Key
) -> None:
    shapes = ({0: torch.export.Dim("images")},)
    programs = [
        torch.export.export(learned(train, s).eval(), (train[0][:2],), dynamic_shapes=shapes)
        for s in (0, 1)
    ]
    first, again, other = (
        key(deepcustom.train_bank, programs[at], *train, EPS) for at in (0, 0, 1)
    )
    assert first == again != other


def test_hardening_on_a_bank_goes_on_with_the_same_bank_alone(
    net: Tiny, train: tuple[Tensor, Tensor], bank: DGNBank, key: Key
) -> None:
    import copy

    other = copy.deepcopy(bank)
    with torch.no_grad():
        next(other.generators[3].parameters()).mul_(2)
    keys = [
        key(deepcustom.harden, net, *train, EPS, "goodfellow", bank=one)
        for one in (bank, bank, other)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_training_goes_on_with_the_same_loss_alone(
    net: Tiny,
    train: tuple[Tensor, Tensor],
    key: Key,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "from deepcustom.attacks.losses.nce import NceLoss\n\nclass Mine(NceLoss):\n    weight = {}\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    keys = []
    options = {"mse_weight": 1.0, "cross_entropy_weight": 1.0}
    for weight in (1, 1, 2):
        monkeypatch.delitem(sys.modules, "library_loss", raising=False)
        Path("library_loss.py").write_text(text.format(weight))
        call = deepcustom.train_bank
        keys.append(key(call, net, *train, EPS, "library_loss:Mine", options=options))
    assert keys[0] == keys[1] != keys[2]


def test_everything_in_l2(
    net: Tiny, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = test[0][:30], test[1][:30]
    for method in ("fgsm", "pgd", "apgd"):
        found = deepcustom.attack(net, x, y, 0.8, method, norm="l2", settings={"batch_size": 30})
        length = (found.x_adv - x).double().flatten(1).norm(dim=1)
        assert 0.7 < length.max() <= 0.8
        assert (found.x_adv - x).abs().max() > 0.1
    told = deepcustom.train_bank(net, *train, 0.8, epochs=1, norm="l2")
    made = deepcustom.attack(told, x, y, 0.8, norm="l2").x_adv
    assert (made - x).double().flatten(1).norm(dim=1).max() <= 0.8
    hard = deepcustom.harden(net, *train, 0.8, epochs=1, norm="l2")
    cheap = {
        "whitebox": {"pgd": {"max_iter": 4, "num_random_init": 1}},
        "autoattack": {"max_iter": 4, "targets": 2, "queries": 20},
        "curves": {"n": 5, "radii": [0, 1], "steps": [1, 2]},
    }
    scores = deepcustom.evaluate(hard.net, *test, 0.8, n=20, settings=cheap, norm="l2")
    assert (scores.norm, scores.eps) == ("l2", 0.8)
    assert "l2, eps 0.8" in repr(scores)
    assert not [one for one in scores.checks if one.name == "ball" and one.verdict != "ok"]
    scores.save(tmp_path / "found")
    assert '"norm": "l2"' in (tmp_path / "found/threat.json").read_text()


def test_a_norm_that_there_is_not_is_one_line(net: Tiny, test: tuple[Tensor, Tensor]) -> None:
    for norm, eps, says in (
        ("l1", 0.1, "norm 'l1': choose from linf, l2"),
        ("l2", 0, "eps 0: want a number above 0, such as 0.5"),
        ("linf", 2, "at most 1"),
    ):
        with pytest.raises(InputError, match=says):
            deepcustom.attack(net, *test, eps, norm=norm)
