"""Training DGNs, keeping them as a bank, and making images with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import budgets
import numpy as np
import pytest
import torch
from networks import GENERATOR
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepcustom.attacks import train_bank as dgn_training
from deepcustom.attacks.bank import DGNBank, propose
from deepcustom.attacks.losses import REGISTRY, CustomLoss, contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.errors import InputError, LossError, ParamsError, UnknownNameError
from deepcustom.base.settings import TrainDgnParams
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import FLOAT32, Compute, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier, parameter_count
from deepcustom.training.nets.mnist import MnistGenerator
from deepcustom.training.prediction import accuracy
from deepcustom.training.weights import load_tensors, save_network, save_tensors

CPU = torch.device("cpu")
BFLOAT16 = Compute(CPU, torch.bfloat16)
CLASSES = 3


def params(**changes) -> TrainDgnParams:
    values = {
        "loss": "nce",
        "training": {"learning_rate": 3e-3, "epochs": 2, "batch_size": 8},
        **changes,
    }
    return budgets.bank(values)


def bank_of(few, target_net, *, val=None, compute, seed=1, **changes):
    """A bank of three DGNs, and its history."""
    x, y = few
    val = (x[y < CLASSES][:10], y[y < CLASSES][:10]) if val is None else val
    return train_bank(
        GENERATOR["mnist"],
        "mnist",
        contexts(target_net, ThreatModel(0.3), changes.pop("analysis", {}), CLASSES),
        few,
        val,
        params(**changes),
        Job(seed, compute),
    )


def state_bytes(net: nn.Module) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in net.state_dict().values())


@pytest.fixture(scope="module")
def made(few, trained):
    """A bank that the tests only read, and the history of its training."""
    return bank_of(few, trained, compute=FLOAT32)


@pytest.fixture
def stored(made, tmp_path) -> Path:
    path = tmp_path / "bank.safetensors"
    made[0].save(path)
    return path


# Training


def test_training_gives_one_frozen_dgn_per_class(made):
    bank, _ = made
    assert (bank.dataset, bank.loss, bank.output) == ("mnist", "nce", "image")
    assert len(bank.generators) == CLASSES
    for net in bank.generators:
        assert isinstance(net, MnistGenerator)
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
    assert len({state_bytes(net) for net in bank.generators}) == CLASSES


def test_history_holds_each_class_and_the_mean_over_classes(made):
    _, history = made
    own = {"loss", "mse", "negative_cross_entropy", "val_target_accuracy"}
    prefixed = {f"class_{label}/{name}" for label in range(CLASSES) for name in own}
    assert set(history) == own | prefixed
    for name in own:
        for epoch in range(2):
            each = [history[f"class_{label}/{name}"][epoch] for label in range(CLASSES)]
            assert history[name][epoch] == pytest.approx(sum(each) / CLASSES)
    for epoch in range(2):
        total = history["mse"][epoch] + history["negative_cross_entropy"][epoch]
        assert history["loss"][epoch] == pytest.approx(total, rel=1e-5)
        assert history["mse"][epoch] > 0 > history["negative_cross_entropy"][epoch]
    assert {len(curve) for curve in history.values()} == {2}


def test_val_target_accuracy_is_that_of_the_projected_images(few, target_net, compute):
    """One step from the fresh DGN and a rate too small to move it: what the DGN makes is known."""
    x, y = few
    val = (x[y < CLASSES], y[y < CLASSES])
    training = {"learning_rate": 1e-12, "epochs": 1, "batch_size": 100}
    bank, history = bank_of(few, target_net, val=val, compute=compute, training=training)
    x_adv = bank.generate(*val, ThreatModel(0.3), compute=compute)
    for label in range(CLASSES):
        mine = val[1] == label
        expected = accuracy(target_net, x_adv[mine], val[1][mine])
        assert history[f"class_{label}/val_target_accuracy"] == [pytest.approx(expected)]


def test_without_validation_images_there_is_no_curve_of_them(few, target_net, nothing, compute):
    _, history = bank_of(few, target_net, val=nothing, compute=compute)
    assert not [name for name in history if "val" in name]
    assert "class_2/loss" in history


def test_mean_curve_is_over_the_classes_that_have_validation_images(few, target_net, compute):
    x, y = few
    only = (x[y == 1], y[y == 1])
    _, history = bank_of(few, target_net, val=only, compute=compute)
    assert "class_0/val_target_accuracy" not in history
    assert history["val_target_accuracy"] == history["class_1/val_target_accuracy"]


def test_same_seed_same_bytes(made, few, target_net, compute):
    bank, history = made
    torch.manual_seed(12345)
    again, its_history = bank_of(few, target_net, compute=compute)
    assert its_history == history
    for one, other in zip(bank.generators, again.generators, strict=True):
        assert state_bytes(one) == state_bytes(other)
    another, _ = bank_of(few, target_net, compute=compute, seed=2)
    for one, other in zip(bank.generators, another.generators, strict=True):
        assert state_bytes(one) != state_bytes(other)


def test_another_classs_images_do_not_change_a_dgn(made, few, target_net, compute):
    x, y = few
    changed = x.clone()
    changed[y == 1] = 1 - x[y == 1]
    more = torch.cat([changed, changed[y == 1]]), torch.cat([y, y[y == 1]])
    bank, _ = bank_of(more, target_net, compute=compute)
    for label, (one, other) in enumerate(zip(made[0].generators, bank.generators, strict=True)):
        assert (state_bytes(one) == state_bytes(other)) is (label != 1)


def test_every_class_has_a_seed_of_its_own(few, target_net, compute, monkeypatch):
    """Two classes with the same images and a loss that is blind to the class."""

    class Copy(CustomLoss):
        def __call__(self, x, g):
            return {"mse": ((g - x) ** 2).flatten(1).mean(1)}

    monkeypatch.setitem(REGISTRY, "copy", Copy)
    x = few[0][:8]
    same = torch.cat([x, x, x]), torch.arange(CLASSES).repeat_interleave(8)
    bank, history = bank_of(same, target_net, compute=compute, loss="copy")
    assert len({state_bytes(net) for net in bank.generators}) == CLASSES
    assert history["class_0/mse"] != history["class_1/mse"]


def test_training_touches_neither_target_network_nor_images(few, target_net, compute):
    before, x, y = state_bytes(target_net), few[0].clone(), few[1].clone()
    bank_of(few, target_net, compute=compute)
    assert state_bytes(target_net) == before
    assert torch.equal(few[0], x)
    assert torch.equal(few[1], y)


def test_training_lowers_the_loss_and_the_target_accuracy(train, target_net, compute):
    x, y = train
    rows = y == 1
    val = (x[rows], torch.zeros_like(y[rows]))  # as the only class of a bank
    training = {"learning_rate": 3e-3, "epochs": 8, "batch_size": 16}
    _, history = train_bank(
        GENERATOR["mnist"],
        "mnist",
        contexts(Relabelled(target_net, 1), ThreatModel(0.3), {}, 1),
        val,
        val,
        params(output="perturbation", training=training),
        Job(0, compute),
    )
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_target_accuracy"][-1] < accuracy(target_net, x[rows], y[rows]) - 0.3


class Relabelled(Classifier):
    """A network whose class ``label`` comes first."""

    def __init__(self, net: Classifier, label: int) -> None:
        super().__init__()
        self.net, self.label = net, label

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        seen, logits = self.net.preactivations(x)
        return seen, logits.roll(-self.label, dims=1)


def test_each_class_gets_its_own_row_of_the_analysis(few, target_net, compute, monkeypatch):
    pixels = torch.arange(30).view(CLASSES, 10)
    seen = {}

    class Spy(CustomLoss):
        requires = ("relevance",)

        def __call__(self, x, g):
            c = self.context
            net = c.target_net.net  # which computes in the precision of the run
            seen[c.label] = (c.analysis["relevance"]["pixels"].tolist(), net, c.threat.eps)
            return {"zero": 0 * g.flatten(1).sum(1)}

    monkeypatch.setitem(REGISTRY, "spy", Spy)
    analysis = {"relevance": {"pixels": pixels}}
    bank_of(few, target_net, compute=compute, loss="spy", analysis=analysis)
    for label in range(CLASSES):
        assert seen[label] == (pixels[label].tolist(), target_net, 0.3)


def test_bfloat16_trains_float32_weights_near_those_of_float32(made, few, target_net):
    bank, history = bank_of(few, target_net, compute=BFLOAT16)
    assert all(p.dtype is torch.float32 for net in bank.generators for p in net.parameters())
    assert history["mse"] == pytest.approx(made[1]["mse"], rel=0.1)


# Interrupts


class Noise(CustomLoss):
    """Draws numbers, when it is built too."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.shift = float(np.random.random())

    def __call__(self, x, g):
        noise = 0.1 * torch.rand(x.shape) + 0.1 * self.shift
        return {"mse": ((g - x - noise) ** 2).flatten(1).mean(1), "a": 0 * g.flatten(1).sum(1)}


class Banking:
    """The same bank of five classes and three epochs each as often as asked for."""

    def __init__(self, few, target_net, folder, monkeypatch):
        self.few, self.target_net, self.folder = few, target_net, folder
        self.trained, self.said = [], []
        monkeypatch.setitem(REGISTRY, "noise", Noise)
        own = dgn_training.train_dgn

        def watched(generator, context, *args, **kwargs):
            self.trained.append(context.label)
            return own(generator, context, *args, **kwargs)

        monkeypatch.setattr(dgn_training, "train_dgn", watched)

    def __call__(self, place, compute, *, loss="nce", stop=None):
        """Bytes of its file and the history; ends in place of step ``stop`` (from 0)."""
        self.trained.clear()
        self.said.clear()

        def advance(note="", steps=1, *, resumed=False):
            if len(self.said) == stop:
                raise KeyboardInterrupt
            self.said.append((note if resumed else " ".join(note.split()[:2]), steps, resumed))

        training = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 4, "schedule": "one_cycle"}
        seed_everything(0)
        bank, history = train_bank(
            GENERATOR["mnist"],
            "mnist",
            contexts(self.target_net, ThreatModel(0.3), {}, 5),
            self.few,
            self.few,
            params(loss=loss, training=training),
            Job(1, compute, advance, place),
        )
        path = self.folder / "bank.safetensors"
        bank.save(path)
        assert not any(
            p.requires_grad or net.training for net in bank.generators for p in net.parameters()
        )
        return path.read_bytes(), list(history.items())


@pytest.fixture
def banking(few, target_net, tmp_path, monkeypatch) -> Banking:
    return Banking(few, target_net, tmp_path, monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["nce", "noise"])
def test_an_interrupted_bank_ends_with_the_same_bytes(banking, tmp_path, loss, precision):
    compute = Compute(CPU, getattr(torch, precision))
    place = Checkpoint(tmp_path / "kept", "f")
    whole = banking(NOWHERE, compute, loss=loss)
    assert banking.trained == [0, 1, 2, 3, 4]
    assert not place.folder.exists()
    with pytest.raises(KeyboardInterrupt):  # in class 3, after its second epoch
        banking(place, compute, loss=loss, stop=3 * 3 + 2)
    again = banking(place, compute, loss=loss)
    assert again == whole
    assert banking.trained == [3, 4]
    assert banking.said == [
        ("resumed after class 3, epoch 2", 11, True),
        ("class 3", 1, False),
        *[("class 4", 1, False)] * 3,
    ]


@pytest.mark.parametrize("stop", [1, 3, 14])
def test_interrupted_elsewhere(banking, tmp_path, compute, stop):
    """In the first class, before a class's first epoch is finished, and in the last epoch of all."""
    place = Checkpoint(tmp_path / "kept", "f")
    whole = banking(NOWHERE, compute)
    with pytest.raises(KeyboardInterrupt):
        banking(place, compute, stop=stop)
    assert banking(place, compute) == whole
    note = {1: "class 0, epoch 1", 3: "class 0", 14: "class 4, epoch 2"}[stop]
    assert banking.said[0] == (f"resumed after {note}", stop, True)
    assert len(banking.said) == 1 + 15 - stop


def test_a_finished_bank_is_not_trained_again(banking, tmp_path, compute):
    place = Checkpoint(tmp_path / "kept", "f")
    whole = banking(place, compute)
    assert banking(place, compute) == whole
    assert banking.trained == []
    assert banking.said == [("resumed after class 4", 15, True)]
    assert sorted(file.name for file in place.folder.iterdir()) == [
        f"class_{label}.safetensors" for label in range(5)
    ]


def test_a_bank_of_another_fingerprint_is_trained_anew_and_of_a_damaged_one_that_class(
    banking, tmp_path, compute
):
    place = Checkpoint(tmp_path / "kept", "f")
    whole = banking(place, compute)
    assert banking(Checkpoint(place.folder, "g"), compute) == whole
    assert banking.trained == [0, 1, 2, 3, 4]
    assert not any(resumed for _, _, resumed in banking.said)
    (place.folder / "class_2.safetensors").write_bytes(b"half")
    assert banking(Checkpoint(place.folder, "g"), compute) == whole
    assert banking.trained == [2]
    assert ("resumed after classes 0, 1, 3, 4", 12, True) in banking.said


# Mistakes before and while training


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": "ncee"}, UnknownNameError, "unknown loss 'ncee'"),
        ({"loss": "lrp"}, LossError, "requires the analysis relevance"),
        ({"options": {"mse": 1}}, ParamsError, "mse is not a known key"),
    ],
)
def test_mistakes_show_before_any_training(few, target_net, compute, changes, error, message):
    with pytest.raises(error, match=message):
        bank_of(few, target_net, compute=compute, **changes)


def test_class_without_spectrum_shows_before_any_training(few, target_net, compute, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "deepcustom.attacks.train_bank.train_dgn", lambda *a, **k: trained.append(a)
    )
    arrays = {"suspicious.dense1": torch.ones(CLASSES, 30, dtype=torch.bool)}
    analysis = {"suspiciousness": {**arrays, "failures": torch.tensor([3, 5, 0])}}
    with pytest.raises(LossError, match="class 2 has no spectrum"):
        bank_of(few, target_net, compute=compute, loss="suspiciousness", analysis=analysis)
    assert not trained


class Mean(CustomLoss):
    """Forgets that a term is one number per image."""

    def __call__(self, x, g):
        return {"mse": ((g - x) ** 2).mean()}


class Bare(CustomLoss):
    """Forgets the name."""

    def __call__(self, x, g):
        return ((g - x) ** 2).flatten(1).mean(1)


class Number(CustomLoss):
    """No tensor."""

    def __call__(self, x, g):
        return {"mse": 0.5}


class Empty(CustomLoss):
    """No terms."""

    def __call__(self, x, g):
        return {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mean", r"term 'mse' is \(\), expected a \(\d+,\) tensor"),
        ("Bare", "must return a mapping of named terms"),
        ("Number", r"term 'mse' is float, expected a \(\d+,\) tensor"),
        ("Empty", "must return a mapping of named terms"),
    ],
)
def test_loss_that_returns_something_else_is_told(few, target_net, compute, name, message):
    path = f"{__name__}:{name}"
    with pytest.raises(LossError, match=f"^loss '{path}'.* ?{message}$"):
        bank_of(few, target_net, compute=compute, loss=path)


# Making images


class Constant(nn.Module):
    """The same value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


def tenths(output="image") -> DGNBank:
    """DGN k says k / 10."""
    return DGNBank("mnist", "none", output, [Constant(k / 10) for k in range(10)])


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_generate_keeps_the_order_and_asks_the_dgn_of_each_label(compute, batch_size):
    x = torch.full((23, 1, 28, 28), 0.5)
    labels = torch.randint(0, 10, (23,), generator=torch.Generator().manual_seed(0))
    wide = ThreatModel(0.3, clip=False)
    x_adv = tenths().generate(x, labels, wide, compute=compute, batch_size=batch_size)
    for image, label in zip(x_adv, labels.tolist(), strict=True):
        torch.testing.assert_close(image, torch.full((1, 28, 28), label / 10))


def test_batches_come_in_few_sizes_and_none_is_too_large(compute):
    """Whatever number of images a class has: every size costs memory that stays."""
    sizes = set()

    class Counting(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            sizes.add(len(x))
            return x

    bank = DGNBank("mnist", "none", "image", [Counting()])
    for n in range(130):
        x = torch.rand(n, 1, 2, 2)
        labels = torch.zeros(n, dtype=torch.int64)
        made = bank.generate(x, labels, ThreatModel(0.3), compute=compute, batch_size=50)
        assert torch.equal(made, x), n
    assert sizes == {16, 32, 48, 50}


def test_labels_that_are_no_whole_numbers_pick_no_dgn(compute):
    bank = DGNBank("mnist", "none", "image", [nn.Identity(), nn.Identity()])
    labels = torch.tensor([0.0, 0.5])
    with pytest.raises(InputError, match=r"labels are torch.float32, want whole numbers \(N,\)"):
        bank.generate(torch.rand(2, 1, 4, 4), labels, ThreatModel(0.3), compute=compute)


@pytest.mark.parametrize("output", ["image", "perturbation"])
def test_a_generator_that_gives_another_shape_is_refused(compute, output):
    """One channel would spread over three without a word."""

    class Grey(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True)

    bank = DGNBank("cifar10", "none", output, [Grey()])
    x, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"the generator gives \(16, 1, 8, 8\) for images \(16, 3"):
        bank.generate(x, labels, ThreatModel(0.3), compute=compute)


def test_each_image_is_made_from_itself(compute):
    x = torch.rand(12, 1, 4, 4)
    bank = DGNBank("mnist", "none", "image", [nn.Identity(), nn.Identity()])
    labels = torch.arange(12) % 2
    assert torch.equal(bank.generate(x, labels, ThreatModel(0.3), compute=compute), x)


def test_images_are_projected(compute, threat):
    x = torch.full((2, 1, 2, 2), 0.5)
    x_adv = tenths().generate(x, torch.tensor([0, 9]), threat, compute=compute)
    assert x_adv[0].flatten().tolist() == pytest.approx([0.2] * 4, abs=1e-6)
    assert x_adv[1].flatten().tolist() == pytest.approx([0.8] * 4, abs=1e-6)
    threat.verify(x_adv.numpy(), x.numpy())


@pytest.mark.parametrize("output", ["image", "perturbation"])
def test_propose_by_hand(output, threat):
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).view(1, 1, 1, 5)
    for s in (0.0, 0.25, 1.0):
        found = propose(Constant(s), x, output, threat).flatten().tolist()
        moved = [min(max(v + 0.3 * (2 * s - 1), 0), 1) for v in x.flatten().tolist()]
        assert found == pytest.approx([s] * 5 if output == "image" else moved)


def test_perturbation_lies_in_the_ball_before_the_projection(few, compute, threat):
    x = few[0]
    for value in (0.0, 1.0):
        g = propose(Constant(value), x, "perturbation", threat)
        assert float((g - x).abs().max()) <= 0.3 + 1e-6
        assert float(g.min()) >= 0
        assert float(g.max()) <= 1
    x_adv = tenths("perturbation").generate(x, few[1], threat, compute=compute)
    threat.verify(x_adv.numpy(), x.numpy())


@pytest.mark.parametrize("output", ["image", "perturbation"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_made_images_are_inside_and_their_originals_untouched(made, few, threat, output, precision):
    x, y = few[0].clone(), few[1] % CLASSES
    bank = DGNBank("mnist", "nce", output, made[0].generators)
    x_adv = bank.generate(x, y, threat, compute=Compute(CPU, precision))
    assert x_adv.dtype is torch.float32
    assert x_adv.shape == x.shape
    assert torch.equal(x, few[0])
    assert not torch.equal(x_adv, x)
    threat.verify(x_adv.numpy(), x.numpy())


def test_nothing_in_nothing_out(made, nothing, threat, compute):
    assert made[0].generate(*nothing, threat, compute=compute).shape == (0, 1, 28, 28)


@pytest.mark.parametrize("label", [-1, CLASSES, 10])
def test_label_without_dgn_is_refused(made, few, threat, compute, label):
    labels = torch.zeros_like(few[1])
    labels[7] = label
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.2, found "):
        made[0].generate(few[0], labels, threat, compute=compute)


@pytest.mark.parametrize("shape", [(59,), (61,), (60, 3)])
def test_other_than_one_label_per_image_is_refused(made, few, threat, compute, shape):
    with pytest.raises(InputError, match="60 images need as many labels"):
        made[0].generate(few[0], torch.zeros(shape, dtype=torch.int64), threat, compute=compute)


# Keeping


def test_bank_comes_back_and_makes_the_same_bytes(made, stored, few, threat, compute, tmp_path):
    bank, _ = made
    loaded = DGNBank.load(stored, GENERATOR["mnist"], "mnist", CLASSES, CPU)
    assert (loaded.dataset, loaded.loss, loaded.output) == ("mnist", "nce", "image")
    for one, other in zip(bank.generators, loaded.generators, strict=True):
        assert state_bytes(one) == state_bytes(other)
        assert not other.training
        assert not any(p.requires_grad for p in other.parameters())
    x, y = few[0], few[1] % CLASSES
    first = bank.generate(x, y, threat, compute=compute)
    assert torch.equal(loaded.generate(x, y, threat, compute=compute), first)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == stored.read_bytes()


def test_weights_are_halved_on_disk_and_the_rest_is_not(stored):
    tensors, about = load_tensors(stored)
    assert about == {
        "kind": "dgn-bank",
        "classes": CLASSES,
        "dataset": "mnist",
        "loss": "nce",
        "output": "image",
    }
    for name, tensor in tensors.items():
        whole = tensor.dim() <= 1
        halved = tensor.dtype is torch.float16
        assert halved is not whole, name
        if "running" in name or name.endswith("bias"):
            assert tensor.dtype is torch.float32, name
    count = CLASSES * parameter_count(MnistGenerator())
    assert 2 * count < stored.stat().st_size < 2.3 * count


def test_perturbation_bank_stays_one(made, tmp_path):
    path = tmp_path / "bank.safetensors"
    DGNBank("mnist", "nce", "perturbation", made[0].generators).save(path)
    assert DGNBank.load(path, GENERATOR["mnist"], "mnist", CLASSES, CPU).output == "perturbation"


def refused(path: Path, message: str, dataset: str = "mnist", classes: int = CLASSES) -> None:
    with pytest.raises(InputError) as caught:
        DGNBank.load(path, GENERATOR["mnist"], dataset, classes, CPU)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _head_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2] ^= 0xFF  # in the header's length
    path.write_bytes(content)


def _pickle(path: Path) -> None:
    torch.save({"0.encoder.0.weight": torch.zeros(3)}, path)


def _without_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def _metadata_of_others(path: Path) -> None:
    save_file(load_file(path), path, metadata={"format": "pt"})


def _metadata_no_json(path: Path) -> None:
    save_file(load_file(path), path, metadata={"deepcustom": "{"})


@pytest.mark.parametrize(
    "spoil",
    [
        _truncate,
        _head_only,
        _empty,
        _flip,
        _pickle,
        _without_metadata,
        _metadata_of_others,
        _metadata_no_json,
    ],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_spoilt_file_is_refused_in_one_line(stored, spoil: Callable[[Path], None]):
    spoil(stored)
    refused(stored, "is not a DeepCustom safetensors file, or is corrupted")


def test_missing_file_and_folder_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors", "is missing")
    refused(tmp_path, "is missing")


def rewritten(path: Path, about: dict | None = None, **tensors: Tensor | None) -> None:
    """Replace or drop tensors, and change the metadata."""
    held, metadata = load_tensors(path)
    held |= tensors
    kept = {name: tensor for name, tensor in held.items() if tensor is not None}
    save_tensors(path, kept, {**metadata, **(about or {})})


WEIGHT, VARIANCE = "1.encoder.0.weight", "2.decoder.2.running_var"


def test_another_shape_is_refused(stored):
    rewritten(stored, **{WEIGHT: torch.zeros(32, 1, 5, 5)})
    refused(stored, "encoder.0.weight has shape (32, 1, 5, 5), expected (32, 1, 3, 3)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [WEIGHT, VARIANCE])
def test_values_that_are_not_finite_are_refused(stored, name, value):
    spoilt = load_tensors(stored)[0][name].clone()
    spoilt.view(-1)[3] = value
    rewritten(stored, **{name: spoilt})
    refused(stored, f"{name[2:]} holds values that are not finite")


@pytest.mark.parametrize("change", [{WEIGHT: None}, {"1.more": torch.zeros(1)}])
def test_missing_or_foreign_tensor_is_refused(stored, change):
    rewritten(stored, **change)
    refused(stored, f"does not fit MnistGenerator: differing tensors ['{next(iter(change))[2:]}']")


def test_bank_of_fewer_classes_is_refused(stored):
    refused(stored, f"holds {CLASSES} DGNs, expected {CLASSES + 1}", classes=CLASSES + 1)


def test_bank_for_another_data_set_is_refused(stored):
    rewritten(stored, {"dataset": "cifar10"})
    refused(stored, "holds a dgn-bank for cifar10, expected a dgn-bank for mnist")


@pytest.mark.parametrize("about", [{"output": "pixels"}, {"output": None}, {"loss": ""}])
def test_bank_that_does_not_say_what_it_is_is_refused(stored, about):
    rewritten(stored, about)
    refused(stored, "does not say how its output is to be read")


def test_network_is_no_bank(target_net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_network(path, target_net, {"kind": "classifier", "dataset": "mnist"})
    refused(path, "holds a classifier for mnist, expected a dgn-bank for mnist")
