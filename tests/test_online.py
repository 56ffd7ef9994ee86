"""Hardening from a generator's proposal, and the conditional generator that it leaves."""

from __future__ import annotations

from dataclasses import replace

import budgets
import pytest
import torch
from networks import CONDITIONAL, GENERATOR, NETWORK
from pipeline_fixtures import interruptible
from torch import nn

from deepcustom.attacks.conditional import ConditionalDGN, PerClass, conditional, perturbed
from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.data.sources import find_source
from deepcustom.hardening.inner import inner_pgd
from deepcustom.hardening.online import Online, OnlineSettings, _Partner, objectives
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import FLOAT32, Compute, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier, build_classifier
from deepcustom.training.nets.mnist import MnistClassifier
from deepcustom.training.prediction import accuracy
from deepcustom.training.weights import save_tensors

CPU = torch.device("cpu")

BALL = ThreatModel(0.1)
BUDGET = budgets.training(learning_rate=3e-3, epochs=2, batch_size=16)
ONLINE = OnlineSettings(
    type="online",
    training=BUDGET,
    generator="conditional",
    learning_rate=1e-3,
    updates=1,
    begin=0.0,
    end=1.0,
    noise=0.0,
    reuse=True,
    eps_step=0.05,
    max_iter=1,
    growth=0.0,
    clean_weight=0.0,
    loss=None,
    options={},
)


def online_way(generator, settings=ONLINE, losses=None, **changes) -> Online:
    """``changes`` are of the budget; settings that the check would refuse are taken."""
    settings = settings.model_copy(update={"training": BUDGET.model_copy(update=changes)})
    return Online(settings, BALL, 10, generator, losses)


def fresh(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return MnistClassifier()


def partner(seed: int = 0, *, per_class: bool = False):
    torch.manual_seed(seed)
    return conditional(CONDITIONAL["mnist"], 10, per_class=per_class)


def weights(net: nn.Module) -> bytes:
    return b"".join(t.detach().numpy().tobytes() for t in net.state_dict().values())


def trained(few, generator, online=ONLINE, *, val=None, losses=None, **changes):
    """The network's and the generator's bytes, and the history."""
    net = fresh()
    way = online_way(generator, online, losses and losses(net), **changes)
    history = way.train(net, few, few if val is None else val, Job(3, FLOAT32))
    return weights(net), generator and weights(generator), history


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
@pytest.mark.parametrize("per_class", [False, True])
def test_what_a_generator_offers_lies_in_the_ball(dataset, per_class):
    shape = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[dataset]
    torch.manual_seed(0)
    generator = conditional(CONDITIONAL[dataset], 10, per_class=per_class)
    x, y = torch.rand(23, *shape), torch.randint(0, 9, (23,))
    offered = perturbed(generator, x, y, BALL)
    assert offered.shape == x.shape
    assert offered.dtype == torch.float32
    BALL.verify(BALL.project(offered.detach(), x).numpy(), x.numpy())
    assert torch.allclose(BALL.project(offered, x), offered, atol=1e-6)  # no more than rounding
    offered.sum().backward()
    assert all(p.grad is not None for p in generator.parameters()) != per_class
    other = perturbed(generator, x, (y + 1) % 10, BALL)
    assert not torch.equal(other, offered)


def test_per_class_asks_each_its_own(few):
    x, y = few
    generator = partner(per_class=True)
    assert isinstance(generator, PerClass)
    for label in range(10):
        mine = y == label
        alone = generator.generators[label](x[mine], y[mine])
        assert torch.equal(generator(x, y)[mine], alone)


def test_network_and_generator_both_learn(few):
    generator = partner()
    before = weights(generator)
    net, after, history = trained(few, generator)
    assert net != weights(fresh())
    assert after != before
    assert set(history) == {"loss", "adversarial", "eps", "val_accuracy", "val_adversarial"}
    assert {len(curve) for curve in history.values()} == {2}


def test_the_same_seed_gives_the_same_bytes_and_no_watching_changes_them(few, nothing):
    once = trained(few, partner())
    assert trained(few, partner())[:2] == once[:2]
    unwatched = trained(few, partner(), val=nothing)
    assert set(unwatched[2]) == {"loss", "adversarial", "eps"}
    assert unwatched[:2] == once[:2]


def test_a_frozen_generator_stays_and_one_that_never_begins_is_not_asked(few):
    start = weights(partner())
    frozen = trained(few, partner(), ONLINE.model_copy(update={"end": 0.0}))
    assert frozen[1] == start
    unasked = trained(few, partner(), ONLINE.model_copy(update={"begin": 1.0}))
    assert unasked[1] == start
    assert unasked[0] == trained(few, None)[0]  # the start is drawn instead
    assert frozen[0] != unasked[0]
    half = trained(few, partner(), ONLINE.model_copy(update={"begin": 0.5}))
    assert half[1] != start


def test_more_updates_and_the_reused_step_matter(few):
    once = trained(few, partner())
    twice = trained(few, partner(), ONLINE.model_copy(update={"updates": 2}))
    bare = trained(few, partner(), ONLINE.model_copy(update={"reuse": False}))
    assert len({once[1], twice[1], bare[1]}) == 3
    assert len({once[0], twice[0], bare[0]}) == 3


def test_noise_moves_the_start_and_not_out_of_the_ball(few):
    x, y = few[0][:16], few[1][:16]
    net, still = fresh().eval(), ONLINE.model_copy(update={"reuse": False})
    for learning in (True, False):
        starts = {}
        for noise in (0.0, 0.25, 1.0):
            online = still.model_copy(update={"noise": noise})
            learner = _Partner.of(partner(), online, None)
            torch.manual_seed(1)
            starts[noise] = learner.start(net, x, y, BALL, 0.05, learning=learning)
            BALL.verify(starts[noise].numpy(), x.numpy())
        off = (starts[0.25] - starts[0.0]).abs().max()
        assert 0.2 * BALL.eps < off <= 0.25 * BALL.eps + 1e-6
        assert (starts[1.0] - starts[0.0]).abs().max() > 0.5 * BALL.eps


def test_the_generator_learns_where_the_noise_is(few):
    plain = trained(few, partner())
    noisy = trained(few, partner(), ONLINE.model_copy(update={"noise": 0.5}))
    assert plain[1] != noisy[1]
    assert plain[0] != noisy[0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_each_update_learns_from_what_the_one_before_made(few, precision):
    offered = []
    generator = partner()
    generator.register_forward_hook(lambda module, given, made: offered.append(made.detach()))
    compute = Compute(torch.device("cpu"), precision)
    x, y = few[0][:16], few[1][:16]
    way = online_way(generator, ONLINE.model_copy(update={"updates": 3}), epochs=1)
    way.train(fresh(), (x, y), (x[:0], y[:0]), Job(3, compute))
    assert len(offered) == 3
    assert not torch.equal(offered[0], offered[1])
    assert not torch.equal(offered[1], offered[2])


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_half_precision_learns_along_the_same_gradient(dataset):
    """In float16 a gradient without its scale falls to zero."""
    torch.manual_seed(0)
    net = build_classifier(NETWORK[dataset]).eval()
    x, y = torch.rand(256, *find_source(dataset).spec.shape), torch.arange(256) % 10
    found = {}
    for precision in (torch.float32, torch.float16):
        torch.manual_seed(1)
        generator = conditional(CONDITIONAL[dataset], 10)
        learner = _Partner.of(generator, ONLINE, None, Compute(CPU, precision))
        with Compute(torch.device("cpu"), precision).autocast():
            learner.start(net, x, y, BALL, 0.05, learning=True)
        found[precision] = [p.grad.flatten() for p in generator.parameters()]
    for exact, half in zip(found[torch.float32], found[torch.float16], strict=True):
        assert torch.cosine_similarity(exact, half, dim=0) > 0.98


def test_a_gradient_that_overflowed_changes_nothing(few):
    x, y = few[0][:16], few[1][:16]
    generator = partner()
    before = weights(generator)
    learner = _Partner.of(generator, ONLINE, None, Compute(CPU, torch.float16))
    offered = perturbed(generator, x, y, BALL)
    learner._learn(offered, torch.full_like(x, torch.inf))
    assert weights(generator) == before
    learner.start(fresh().eval(), x, y, BALL, 0.05, learning=True)
    assert weights(generator) != before


def test_the_share_of_clean_images_is_a_term(few):
    history = trained(few, partner(), ONLINE.model_copy(update={"clean_weight": 0.25}))[2]
    assert {"clean", "adversarial", "loss"} <= set(history)
    for clean, adversarial, loss in zip(
        history["clean"], history["adversarial"], history["loss"], strict=True
    ):
        assert loss == pytest.approx(clean + adversarial, rel=1e-5)
        assert 0 < clean < adversarial


def test_a_custom_loss_is_what_the_generator_minimises(few):
    def nce(weight):
        options = {"mse_weight": weight, "cross_entropy_weight": 1.0}
        named = ONLINE.model_copy(update={"loss": "nce", "options": options})
        return lambda net: objectives(named, contexts(net, BALL, {}, 10))

    assert objectives(ONLINE, contexts(fresh(), BALL, {}, 10)) is None

    own = trained(few, partner(), epochs=1)
    same = trained(few, partner(), losses=nce(0.0), epochs=1)
    near = trained(few, partner(), losses=nce(1000.0), epochs=1)

    def vector(raw: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(raw), dtype=torch.float32)

    # Without the distance, nce is the negative of the cross entropy, taken class by class.
    assert torch.allclose(vector(same[1]), vector(own[1]), atol=1e-3)
    x, y = few
    moved = {}
    for name, raw in {"own": own[1], "near": near[1]}.items():
        generator = partner()
        nn.utils.vector_to_parameters(vector(raw), generator.parameters())
        moved[name] = float((perturbed(generator, x, y, BALL) - x).abs().mean())
    assert moved["near"] < 0.8 * moved["own"]


def test_it_withstands_what_brings_the_target_down(train, held_out, target_net):
    net, generator = fresh(), partner()
    growing = ONLINE.model_copy(update={"growth": 0.5})
    way = online_way(generator, growing, epochs=15, learning_rate=5e-3)
    way.train(net, train, held_out, Job(0, FLOAT32))
    x, y = held_out
    left = {}
    for name, one in {"target": target_net, "hardened": net}.items():
        x_adv = inner_pgd(one, x, y, BALL, eps_step=0.02, max_iter=20)
        left[name] = accuracy(one, x_adv, y)
    assert left["hardened"] > left["target"] + 0.2
    drawn = BALL.project(x + BALL.eps * (2 * torch.rand_like(x) - 1), x)
    with torch.no_grad():
        offered, random = (
            nn.functional.cross_entropy(net(start), y)
            for start in (perturbed(generator, x, y, BALL), drawn)
        )
    assert offered > 1.05 * random, "what it learned to offer is harder than a start at random"


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_an_interrupted_training_ends_with_the_same_bytes(few, tmp_path, stop):
    def run(place, stop=None):
        advance, said = interruptible(stop)
        seed_everything(len(str(stop)))  # what was drawn before must not matter
        net, generator = fresh(), partner()
        job = Job(3, FLOAT32, advance, place)
        history = online_way(generator, epochs=4).train(net, few, few, job)
        return weights(net), weights(generator), list(history.items()), said

    net, generator, history, said = run(NOWHERE)
    place = Checkpoint(tmp_path / "kept", "f")
    with pytest.raises(KeyboardInterrupt):
        run(place, stop)
    resumed = [(stop, f"resumed after epoch {stop}")] if stop else []
    assert run(place) == (net, generator, history, resumed + said[stop:])


@pytest.mark.parametrize("how", ["damaged", "missing", "of another epoch"])
def test_without_its_generator_a_training_starts_anew(few, tmp_path, how):
    def run(place, stop=None):
        advance, said = interruptible(stop)
        net, generator = fresh(), partner()
        job = Job(3, FLOAT32, advance, place)
        online_way(generator, epochs=4).train(net, few, few, job)
        return weights(net), weights(generator), said

    whole = run(NOWHERE)
    place = Checkpoint(tmp_path / "kept", "f")
    with pytest.raises(KeyboardInterrupt):
        run(place, 2)
    (file,) = (tmp_path / "kept/generator-0").iterdir()
    if how == "damaged":
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
    elif how == "missing":
        file.unlink()
    else:
        (other,) = (tmp_path / "kept/generator-1").iterdir()
        file.write_bytes(other.read_bytes())
    assert run(place) == whole


@pytest.mark.parametrize("per_class", [False, True])
def test_a_generator_comes_back_from_its_file_and_attacks(few, tmp_path, per_class, target_net):
    x, y = few
    generator = partner(per_class=per_class).eval()
    made = ConditionalDGN("mnist", "cross entropy", per_class, generator)
    made.save(tmp_path / "g.safetensors")
    back = ConditionalDGN.load(
        tmp_path / "g.safetensors", CONDITIONAL["mnist"], "mnist", 10, torch.device("cpu")
    )
    assert replace(back, generator=generator) == made
    compute = FLOAT32
    x_adv = back.generate(x, y, BALL, compute=compute)
    assert torch.equal(x_adv, made.generate(x, y, BALL, compute=compute))
    BALL.verify(x_adv.numpy(), x.numpy())
    assert back.generate(x[:0], y[:0], BALL, compute=compute).shape == x[:0].shape
    assert not back.generator.training
    assert not any(p.requires_grad for p in back.generator.parameters())


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    save_tensors(path, {"a": torch.zeros(1)}, {"kind": "dgn-bank", "dataset": "mnist"})
    with pytest.raises(InputError, match="holds a dgn-bank for mnist, expected a conditional-dgn"):
        ConditionalDGN.load(path, CONDITIONAL["mnist"], "mnist", 10, torch.device("cpu"))
    with pytest.raises(InputError, match=r"is not a subclass of .*nets\.base\.Conditional$"):
        conditional(GENERATOR["mnist"], 10)


@pytest.mark.parametrize("per_class", [False, True])
def test_a_generator_refuses_labels_that_are_none(few, per_class):
    x, _ = few
    dgn = ConditionalDGN("mnist", "nce", per_class, partner(per_class=per_class))
    for labels, said in (
        (torch.zeros(3, dtype=torch.int64), "as many labels"),
        (torch.zeros(len(x), 1, dtype=torch.int64), "as many labels"),
        (torch.full((len(x),), 10), r"0\.\.9"),
        (torch.full((len(x),), -1), r"0\.\.9"),
    ):
        with pytest.raises(InputError, match=said):
            dgn.generate(x, labels, BALL, compute=FLOAT32)
