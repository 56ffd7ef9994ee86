"""A bank that is one DGN, told the label: training it, keeping it, and adapting it."""

from __future__ import annotations

import copy
from dataclasses import replace

import budgets
import pytest
import torch
from networks import CONDITIONAL
from torch import Tensor, nn

from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses import REGISTRY, CustomLoss, contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.attacks.train_conditional import OnePass, by_label, train_conditional
from deepcustom.base.errors import InputError, LossError, ParamsError, UnknownNameError
from deepcustom.base.settings import TrainDgnParams
from deepcustom.evaluation.adaptive import PROTOCOL, adapt, adaptive, by_any
from deepcustom.evaluation.adaptive import by_label as attack_by_label
from deepcustom.evaluation.material import as_it_is
from deepcustom.evaluation.victim import Victim
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import FLOAT32, Compute
from deepcustom.training.job import Job
from deepcustom.training.nets.anyshape import AnyConditional
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.small import SmallClassifier
from deepcustom.training.nets.unet import UNetConditional
from deepcustom.training.prediction import accuracy
from deepcustom.training.weights import load_tensors

CPU = torch.device("cpu")
BALL = ThreatModel(0.3)
TRAINING = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 16, "schedule": "one_cycle"}


def params(**changes) -> TrainDgnParams:
    values = {
        "loss": "nce",
        "generator": "conditional",
        "output": "perturbation",
        "training": TRAINING,
        **changes,
    }
    return budgets.bank(values)


def fresh(classes: int = 10, seed: int = 0):
    torch.manual_seed(seed)
    return conditional(CONDITIONAL["mnist"], classes)


def told(images, net, *, val=None, compute=FLOAT32, seed=1, generator=None, **changes):
    """A DGN of all classes, and its history."""
    job = changes.pop("job", Job(seed, compute))
    found = contexts(net, BALL, changes.pop("analysis", {}), changes.pop("classes", 10))
    start = fresh() if generator is None else generator
    return train_conditional(
        start, "mnist", found, images, images if val is None else val, params(**changes), job
    )


def state_bytes(net: nn.Module) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in net.state_dict().values())


@pytest.fixture(scope="module")
def made(train, trained):
    """A DGN that the tests only read, and its history."""
    return told((train[0][:400], train[1][:400]), trained)


# Training


def test_training_fools_the_network_far_better_than_noise(made, trained, held_out):
    dgn, history = made
    x, y = held_out
    x_adv = dgn.generate(x, y, BALL, compute=FLOAT32)
    torch.manual_seed(0)
    noise = BALL.project(x + 0.3 * torch.randn_like(x).sign(), x)
    assert accuracy(trained, x_adv, y) < accuracy(trained, noise, y) - 0.3
    BALL.verify(x_adv.numpy(), x.numpy())
    assert history["loss"][-1] < history["loss"][0]


def test_it_is_a_frozen_conditional_dgn(made):
    dgn, _ = made
    assert (dgn.dataset, dgn.loss, dgn.per_class, dgn.classes) == ("mnist", "nce", False, 10)
    assert not dgn.generator.training
    assert not any(p.requires_grad for p in dgn.generator.parameters())


def test_the_history_is_a_banks_without_the_single_classes(made, few, trained):
    _, history = made
    bank = budgets.bank({"loss": "nce", "training": TRAINING})
    _, of_bank = train_bank(
        "deepcustom.training.nets.mnist:MnistGenerator",
        "mnist",
        contexts(trained, BALL, {}, 3),
        few,
        few,
        bank,
        Job(1, FLOAT32),
    )
    assert set(history) == {name for name in of_bank if "/" not in name}
    assert {len(curve) for curve in history.values()} == {3}


def test_the_last_accuracy_is_that_of_the_stored_weights(made, train, trained, tmp_path):
    dgn, history = made
    path = tmp_path / "g.safetensors"
    dgn.save(path)
    back = ConditionalDGN.load(path, CONDITIONAL["mnist"], "mnist", 10, CPU)
    x, y = train[0][:400], train[1][:400]
    found = accuracy(trained, back.generate(x, y, BALL, compute=FLOAT32), y)
    assert history["val_target_accuracy"][-1] == pytest.approx(found)
    assert state_bytes(back.generator) == state_bytes(dgn.generator)


def test_its_file_holds_weights_in_half_precision_only_where_that_is_exact(made, tmp_path):
    path = tmp_path / "g.safetensors"
    made[0].save(path)
    tensors, about = load_tensors(path)
    kinds = {name: t.dtype for name, t in tensors.items()}
    assert {kinds[f"net.{n}.weight"] for n in (0, 2)} == {torch.float16}
    assert {kinds[f"net.{n}.bias"] for n in (0, 2)} == {torch.float32}
    assert about["kind"] == "conditional-dgn"
    ConditionalDGN("mnist", "nce", False, fresh()).save(path)  # as training left its weights
    assert {t.dtype for t in load_tensors(path)[0].values()} == {torch.float32}


def test_training_touches_neither_network_nor_images(few, trained):
    net, x, y = copy.deepcopy(trained), few[0].clone(), few[1].clone()
    told(few, net)
    assert state_bytes(net) == state_bytes(trained)
    assert torch.equal(few[0], x)
    assert torch.equal(few[1], y)


def test_the_same_seed_gives_the_same_bytes(few, trained, nothing):
    one, history = told(few, trained)
    torch.manual_seed(99)
    again, same = told(few, trained)
    assert (state_bytes(again.generator), same) == (state_bytes(one.generator), history)
    unwatched, less = told(few, trained, val=nothing)
    assert state_bytes(unwatched.generator) == state_bytes(one.generator)
    assert less == {k: v for k, v in history.items() if k != "val_target_accuracy"}
    other, _ = told(few, trained, seed=2)
    assert state_bytes(other.generator) != state_bytes(one.generator)


class Noisy(CustomLoss):
    """Draws numbers, when it is built too."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.shift = float(torch.rand(()))

    def __call__(self, x, g):
        return {"mse": ((g - x - self.shift * torch.rand(x.shape)) ** 2).flatten(1).mean(1)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["nce", "noisy"])
def test_an_interrupted_training_ends_with_the_same_bytes(
    few, trained, tmp_path, monkeypatch, loss, precision
):
    monkeypatch.setitem(REGISTRY, "noisy", Noisy)
    compute = Compute(CPU, getattr(torch, precision))
    said = []

    def run(place, stop=None):
        def advance(note="", steps=1, *, resumed=False):
            if len(said) == stop:
                raise KeyboardInterrupt
            said.append((note, steps, resumed))

        said.clear()
        job = Job(1, compute, advance, place)
        dgn, history = told(few, trained, loss=loss, compute=compute, job=job)
        dgn.save(tmp_path / "g.safetensors")
        return (tmp_path / "g.safetensors").read_bytes(), list(history.items())

    whole = run(NOWHERE)
    place = Checkpoint(tmp_path / "kept", "f")
    with pytest.raises(KeyboardInterrupt):
        run(place, stop=1)
    assert run(place) == whole
    assert said[0] == ("resumed after epoch 1", 1, True)
    assert len(said) == 1 + 2


@pytest.mark.parametrize("classes", [3, 100])
def test_other_numbers_of_classes_and_sizes(classes):
    """Small random images of 9 x 12 in three channels, against a network that was never trained."""
    torch.manual_seed(0)
    x, y = torch.rand(200, 3, 9, 12), torch.arange(200) % classes
    net = SmallClassifier((3, 9, 12), classes).eval().requires_grad_(False)
    y = net(x).argmax(1) if classes == 3 else y
    generator = AnyConditional((3, 9, 12), classes)
    dgn, history = told((x, y), net, generator=generator, classes=classes)
    assert history["negative_cross_entropy"][-1] < history["negative_cross_entropy"][0]
    x_adv = dgn.generate(x, y, BALL, compute=FLOAT32)
    BALL.verify(x_adv.numpy(), x.numpy())
    victim = Victim("it", net, x, y, BALL, classes, 3, FLOAT32)
    budget = budgets.adaptive(bank="b", training=budgets.training(**TRAINING))
    adapted = adapt(dgn, victim, (x, y), budget, compute=FLOAT32)
    assert adapted.classes == classes
    any_label = by_any(victim, adapted, compute=FLOAT32)
    own_label = attack_by_label(victim, adapted, compute=FLOAT32)
    assert not (any_label.stands & ~own_label.stands).any()


# Losses by label


class ByLabel(CustomLoss):
    """What a class sees, and a term that one class alone has."""

    def __call__(self, x, g):
        label = self.context.label
        size = (g - x).abs().flatten(1).sum(1)
        terms = {"size": (label + 1) * size}
        return {**terms, "extra": size} if label == 2 else terms


def losses_of(name: str, net: Classifier, classes: int = 10, analysis=None):
    return [
        REGISTRY[name](REGISTRY[name].Options(), context)
        for context in contexts(net, BALL, analysis or {}, classes)
    ]


def test_each_image_meets_the_loss_of_its_label(few, trained, monkeypatch):
    monkeypatch.setitem(REGISTRY, "by-label", ByLabel)
    net = OnePass(trained)
    y, order = few[1].sort(stable=True)
    x = few[0][order]
    g = (x + 0.1).clamp(max=1)
    found = by_label(losses_of("by-label", net), net, x, g, y, "by-label")
    size = (g - x).abs().flatten(1).sum(1)
    torch.testing.assert_close(found["size"], (y + 1) * size)
    torch.testing.assert_close(found["extra"], torch.where(y == 2, size, 0.0))


@pytest.mark.parametrize("loss", ["nce", "suspiciousness", "lrp"])
def test_one_pass_gives_what_a_pass_for_each_label_gives(few, trained, loss):
    """Values and the gradient at the generator's output."""
    torch.manual_seed(0)
    analysis = {
        "suspiciousness": {
            "suspicious.dense1": torch.rand(10, 30) > 0.5,
            "suspicious.dense3": torch.rand(10, 30) > 0.5,
            "failures": torch.ones(10, dtype=torch.int64),
        },
        "relevance": {
            "pixels": torch.arange(50).view(10, 5),
            "relevance": torch.rand(10, 1, 28, 28),
        },
    }
    y, order = few[1].sort(stable=True)
    x = few[0][order]
    options = budgets.options(loss)

    def terms_and_slope(net, by):
        given = [replace(one, target_net=net) for one in contexts(trained, BALL, analysis, 10)]
        from deepcustom.attacks.losses import build_loss

        losses = [build_loss(loss, options, one) for one in given]
        g = (x + 0.05).clamp(max=1).requires_grad_()
        terms = by(losses, g)
        total = torch.stack(list(terms.values())).sum()
        return terms, torch.autograd.grad(total, g)[0]

    def each(losses, g):
        parts = [losses[label](x[y == label], g[y == label]) for label in torch.unique(y).tolist()]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    net = OnePass(trained)
    found, slope = terms_and_slope(net, lambda losses, g: by_label(losses, net, x, g, y, loss))
    expected, wanted = terms_and_slope(trained, each)
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values)
    torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)


class Counting(Classifier):
    """Counts its passes."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net, self.sizes = net, []

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        self.sizes.append(len(x))
        return self.net.preactivations(x)


def test_a_batch_costs_one_pass_and_other_images_one_of_their_own(few, trained):
    inner = Counting(trained)
    net = OnePass(inner)
    x = few[0][:6].clone().requires_grad_()
    parts = torch.split(x, [1, 2, 3])
    with net.shown((x, parts)):
        with torch.no_grad():
            assert not net(parts[1]).requires_grad
        outs = [net(part) for part in parts]  # a pass anew: these want a gradient
        assert all(out.requires_grad for out in outs)
        own = net(parts[2] * 0.5)
    assert inner.sizes == [6, 6, 3]
    torch.testing.assert_close(torch.cat(outs), trained(x))
    torch.testing.assert_close(own, trained(x[3:] * 0.5))
    net(parts[1])  # outside, nothing is known
    assert inner.sizes == [6, 6, 3, 2]


def test_logits_come_from_the_pass_that_told_the_hidden_layers(few, trained):
    inner = Counting(trained)
    net, x = OnePass(inner), few[0][:6].clone().requires_grad_()
    parts = torch.split(x, [1, 2, 3])
    with net.shown((x, parts)):
        told = [net.preactivations(part)[1] for part in parts]
        assert all(net(part) is logits for part, logits in zip(parts, told, strict=True))
        with torch.no_grad():
            assert not net(parts[0]).requires_grad  # a pass of its own
    assert inner.sizes == [6, 6]


# Mistakes


class Number(CustomLoss):
    def __call__(self, x, g):
        return {"a": ((g - x) ** 2).mean()}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": "ncee"}, UnknownNameError, "unknown loss 'ncee'"),
        ({"loss": "lrp"}, LossError, "requires the analysis relevance"),
        ({"options": {"mse": 1}}, ParamsError, "mse is not a known key"),
        ({"loss": "number"}, LossError, r"term 'a' is \(\), expected a \(\d+,\) tensor"),
    ],
)
def test_mistakes_are_one_line(few, trained, monkeypatch, changes, error, message):
    monkeypatch.setitem(REGISTRY, "number", Number)
    with pytest.raises(error, match=message) as caught:
        told(few, trained, **changes)
    assert "\n" not in str(caught.value)


def test_without_images_there_is_nothing_to_learn(nothing, trained):
    with pytest.raises(InputError, match="no train image"):
        told(nothing, trained)


def test_an_image_cannot_be_its_output():
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="output should be perturbation, since generator is"):
        params(output="image")


# The adaptive protocol


ONCE = budgets.adaptive(bank="b", training=budgets.training(**{**TRAINING, "epochs": 2}))


def victim_of(net: nn.Module, images, n: int = 60) -> Victim:
    return Victim("it", net, images[0][:n].clone(), images[1][:n], BALL, 10, 3, FLOAT32)


def test_adapting_leaves_the_dgn_and_the_network_and_does_harm(trained, train, held_out):
    net, start = copy.deepcopy(trained), ConditionalDGN("mnist", "nce", False, fresh().eval())
    victim, before = victim_of(net, held_out), state_bytes(start.generator)
    adapted = adapt(start, victim, (train[0][:300], train[1][:300]), ONCE, compute=FLOAT32)
    assert state_bytes(start.generator) == before
    assert state_bytes(net) == state_bytes(trained)
    assert victim.spent().gradients == 600
    assert not adapted.generator.training
    assert not any(p.requires_grad for p in adapted.generator.parameters())
    weak = attack_by_label(victim, start, compute=FLOAT32)
    strong = attack_by_label(victim, adapted, compute=FLOAT32)
    assert strong.accuracy < weak.accuracy - 0.2
    again = adapt(start, victim, (train[0][:300], train[1][:300]), ONCE, compute=FLOAT32)
    assert state_bytes(again.generator) == state_bytes(adapted.generator)


def test_it_adapts_to_the_first_images_of_each_class(trained, train, held_out):
    start = ConditionalDGN("mnist", "nce", False, fresh().eval())
    x, y = train[0][:120], train[1][:120]
    kept = torch.cat([torch.nonzero(y == label).flatten()[:4] for label in range(10)]).sort().values
    assert len(kept) == 40
    limited = ONCE.model_copy(update={"images_per_class": 4})
    victim = victim_of(trained, held_out)
    few = adapt(start, victim, (x, y), limited, compute=FLOAT32)
    same = adapt(start, victim, (x[kept], y[kept]), ONCE, compute=FLOAT32)
    everything = adapt(start, victim, (x, y), ONCE, compute=FLOAT32)
    assert state_bytes(few.generator) == state_bytes(same.generator)
    assert state_bytes(few.generator) != state_bytes(everything.generator)


def test_without_images_it_stays(trained, nothing, held_out):
    start = ConditionalDGN("mnist", "nce", False, fresh().eval())
    found = adapt(start, victim_of(trained, held_out), nothing, ONCE, compute=FLOAT32)
    assert state_bytes(found.generator) == state_bytes(start.generator)


def test_every_label_is_tried_on_what_is_left(made, trained, held_out):
    victim, dgn = victim_of(trained, held_out), made[0]
    found = by_any(victim, dgn, compute=FLOAT32)
    right = victim.right
    x, y = victim.x[right], victim.y[right]
    left, shown = torch.ones(len(x), dtype=torch.bool), 0
    for label in range(10):
        shown += int(left.sum())
        x_adv = dgn.generate(x, torch.full((len(x),), label), BALL, compute=FLOAT32)
        left &= trained(x_adv).argmax(1) == y
    assert torch.equal(found.stands[right], left)
    assert found.cost.queries == shown + len(x)  # and once more, for the outcome
    assert shown < 10 * len(x)


def test_the_protocol_has_both_attacks(made, trained, train, held_out):
    victim = victim_of(trained, held_out)
    some = train[0][:100], train[1][:100]
    attacks = list(adaptive(victim, as_it_is((made[0], some)), ONCE, compute=FLOAT32))
    assert [(one.protocol, one.name) for one in attacks] == [
        (PROTOCOL, "dgn"),
        (PROTOCOL, "dgn-any"),
    ]
    outcomes = [one.run() for one in attacks]
    assert outcomes[0].cost.gradients == 200
    assert outcomes[1].cost.gradients == 0
    assert not (outcomes[1].stands & ~outcomes[0].stands).any()


def test_a_network_that_tells_no_hidden_layers_is_shown_a_batch_at_once(few):
    silent = Foreign(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Tanh()))
    sizes: list[int] = []
    silent.net.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    net, x = OnePass(silent), few[0][:6]
    parts = torch.split(x, [1, 2, 3])
    with net.shown((x, parts)):
        found = [net(part) for part in parts]
    assert sizes == [6]
    torch.testing.assert_close(torch.cat(found), silent.net(x))


def test_where_weights_lie_changes_no_number_but_by_rounding(few, tmp_path):
    """What a stage lays out for speed is the same generator, and its file says nothing of it."""
    x, y = few
    torch.manual_seed(0)
    net = UNetConditional((1, 28, 28), 10).eval().requires_grad_(False)
    dgn = ConditionalDGN("mnist", "soft_margin", per_class=False, generator=net)
    before = dgn.generate(x, y, ThreatModel(0.3), compute=FLOAT32)
    dgn.save(tmp_path / "one.safetensors")
    placed = dgn.placed(FLOAT32)
    assert placed.generator.net.down[1].conv.weight.is_contiguous(memory_format=torch.channels_last)
    after = placed.generate(x, y, ThreatModel(0.3), compute=FLOAT32)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    placed.save(tmp_path / "two.safetensors")
    one, two = (tmp_path / f"{name}.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
