"""The training loop against Adam written out, its schedules, and its bookkeeping."""

from __future__ import annotations

import copy
import math
from itertools import chain

import budgets
import numpy as np
import pytest
import torch
from torch import nn

from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.fit import fit, train_classifier, watch_accuracy
from deepcustom.training.job import Job
from deepcustom.training.prediction import accuracy, predict

N = 11  # not a multiple of the batch sizes below: the last batch is short


def params(**changes):
    return budgets.training(**{"learning_rate": 0.01, "epochs": 3, "batch_size": 4, **changes})


def problem(n=N):
    """A linear regression with two terms."""
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 3, generator=rng), torch.randn(n, generator=rng)
    torch.manual_seed(2)
    return nn.Linear(3, 1), x, y


def terms_of(net):
    return lambda x, y: {
        "square": (net(x).squeeze(1) - y) ** 2,
        "penalty": 0.1 * net(x).squeeze(1).abs(),
    }


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def adam_by_hand(net, x, y, p, seed, rate):
    """Float64, update by update, as Kingma and Ba 2015 write it; ``rate``: step from 0 → lr."""
    net = copy.deepcopy(net).double()
    x, y = x.double(), y.double()
    first = [torch.zeros_like(w) for w in net.parameters()]
    second = [torch.zeros_like(w) for w in net.parameters()]
    order = torch.Generator().manual_seed(seed)
    means, step = [], 0
    for _ in range(p.epochs):
        rows = torch.randperm(len(x), generator=order).tolist()
        seen = {"square": 0.0, "penalty": 0.0}
        for start in range(0, len(x), p.batch_size):
            batch = rows[start : start + p.batch_size]
            loss = 0.0
            for i in batch:
                out = (net.weight @ x[i] + net.bias).squeeze()
                square, penalty = (out - y[i]) ** 2, 0.1 * abs(out)
                seen["square"] += float(square.detach())
                seen["penalty"] += float(penalty.detach())
                loss = loss + (square + penalty) / len(batch)
            grads = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for w, g, m, v in zip(net.parameters(), grads, first, second, strict=True):
                    g = g + p.weight_decay * w
                    m.mul_(p.momentum).add_((1 - p.momentum) * g)
                    v.mul_(0.999).add_(0.001 * g**2)
                    m_hat = m / (1 - p.momentum ** (step + 1))
                    v_hat = v / (1 - 0.999 ** (step + 1))
                    w -= rate(step) * m_hat / (v_hat.sqrt() + 1e-8)
            step += 1
        means.append({name: total / len(x) for name, total in seen.items()})
    return net, means


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({}, lambda step: 0.01),
        ({"momentum": 0.5, "weight_decay": 0.1, "batch_size": 5}, lambda step: 0.01),
        (
            {"schedule": "staircase", "decay_rate": 0.5, "decay_steps": 2},
            lambda step: 0.01 * 0.5 ** (step // 2),
        ),
        ({"batch_size": 100}, lambda step: 0.01),
    ],
)
def test_fit_is_adam_on_the_mean_of_the_summed_terms(changes, rate, compute):
    net, x, y = problem()
    p = params(**changes)
    expected, means = adam_by_hand(net, x, y, p, 7, rate)
    before = parameters(net).clone()
    history = fit(net, terms_of(net), [x, y], p, Job(7, compute))
    torch.testing.assert_close(parameters(net).double(), parameters(expected), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(parameters(net), before, atol=1e-3)
    for epoch, mean in enumerate(means):
        assert history["square"][epoch] == pytest.approx(mean["square"], rel=1e-4)
        assert history["penalty"][epoch] == pytest.approx(mean["penalty"], rel=1e-4)
        assert history["loss"][epoch] == pytest.approx(sum(mean.values()), rel=1e-4)


@pytest.mark.parametrize("parts", [1, 2, 3, 99])
def test_a_batch_in_parts_is_the_same_step(parts, compute):
    """Also where the parts are of unlike size, and where a batch has fewer rows than parts."""
    whole, x, y = problem()
    pieces, seen = copy.deepcopy(whole), []

    def counted(some, wanted):
        seen.append(len(some))
        return terms_of(pieces)(some, wanted)

    first = fit(whole, terms_of(whole), [x, y], params(), Job(7, compute))
    second = fit(pieces, counted, [x, y], params(accumulate=parts), Job(7, compute))
    torch.testing.assert_close(parameters(pieces), parameters(whole), rtol=1e-5, atol=1e-6)
    assert second.keys() == first.keys()
    for name, values in first.items():
        assert second[name] == pytest.approx(values, rel=1e-5)
    size = math.ceil(4 / parts)
    assert sum(seen) == 3 * N
    assert max(seen) == size


def test_history_has_one_number_per_epoch_and_term(compute):
    net, x, y = problem()
    history = fit(net, terms_of(net), [x, y], params(epochs=4), Job(0, compute))
    assert set(history) == {"loss", "square", "penalty"}
    assert {len(curve) for curve in history.values()} == {4}
    assert all(type(value) is float for curve in history.values() for value in curve)


def test_a_term_called_loss_is_not_counted_twice(compute):
    net, x, y = problem()

    def one(x, y):
        return {"loss": torch.ones(len(x)) + 0 * net(x).sum(1)}

    history = fit(net, one, [x, y], params(), Job(0, compute))
    assert history == {"loss": [1.0, 1.0, 1.0]}


def rates(monkeypatch, compute, **changes):
    """The learning rate of every step."""
    seen = []
    adam_step = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return adam_step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    net, x, y = problem()
    fit(net, terms_of(net), [x, y], params(**changes), Job(0, compute))
    return seen


def test_constant_rate(monkeypatch, compute):
    assert rates(monkeypatch, compute) == [0.01] * 9


def test_staircase_falls_every_so_many_steps(monkeypatch, compute):
    seen = rates(monkeypatch, compute, schedule="staircase", decay_rate=0.9, decay_steps=4)
    assert seen == pytest.approx([0.01] * 4 + [0.009] * 4 + [0.0081])


def test_one_cycle_goes_up_and_ends_low(monkeypatch, compute):
    seen = rates(monkeypatch, compute, schedule="one_cycle", epochs=10)
    assert len(seen) == 30
    assert max(seen) == pytest.approx(0.01, rel=0.02)
    assert 3 < seen.index(max(seen)) < 15
    assert seen[0] == pytest.approx(0.01 / 25)
    assert seen[-1] < 1e-6


def test_one_cycle_of_a_single_step(monkeypatch, compute):
    assert len(rates(monkeypatch, compute, schedule="one_cycle", epochs=1, batch_size=N)) == 1


def test_every_row_once_an_epoch_in_a_fresh_order_and_a_short_last_batch(compute):
    net, x, _ = problem()
    seen = []

    def terms(x, row):
        seen.append(row.tolist())
        return {"a": net(x).squeeze(1)}

    fit(net, terms, [x, torch.arange(N)], params(epochs=2), Job(0, compute))
    assert [len(batch) for batch in seen] == [4, 4, 3, 4, 4, 3]
    first, second = [*chain(*seen[:3])], [*chain(*seen[3:])]
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second


def trained_bytes(seed, compute, torch_seed):
    net, x, y = problem()
    torch.manual_seed(torch_seed)  # the order must not depend on the global generator
    history = fit(net, terms_of(net), [x, y], params(), Job(seed, compute))
    return parameters(net).numpy().tobytes(), history


def test_same_seed_same_bytes_and_another_seed_other_bytes(compute):
    assert trained_bytes(3, compute, 0) == trained_bytes(3, compute, 99)
    assert trained_bytes(3, compute, 0)[0] != trained_bytes(4, compute, 0)[0]


def test_after_epoch_sees_the_net_in_eval_mode_and_joins_the_history(compute):
    net, x, y = problem()
    net = nn.Sequential(net, nn.Dropout(0.5))
    modes, seen = [], []

    def terms(x, y):
        modes.append(net.training)
        return {"square": (net(x).squeeze(1) - y) ** 2}

    def after_epoch(epoch):
        seen.append((epoch, net.training))
        return {"extra": 10.0 * epoch}

    history = fit(net, terms, [x, y], params(), Job(0, compute), after_epoch=after_epoch)
    assert seen == [(epoch, False) for epoch in (1, 2, 3)]
    assert history["extra"] == [10.0, 20.0, 30.0]
    assert all(modes)
    assert len(modes) == 9
    assert not net.training


def test_each_epoch_is_begun_ended_and_told(compute):
    net, x, y = problem()
    told, calls = [], []

    def terms(x, y):
        calls.append("batch")
        return {"a": 0 * net(x).squeeze(1) + 0.5}

    def before_epoch(epoch):
        calls.append(("begins", epoch))

    def after_epoch(epoch):
        calls.append(("ends", epoch))
        return {"extra": 1.0}

    one = params(epochs=2, batch_size=N)
    hooks = {"before_epoch": before_epoch, "after_epoch": after_epoch}
    fit(net, terms, [x, y], one, Job(0, compute, told.append), **hooks)
    assert calls == [("begins", 1), "batch", ("ends", 1), ("begins", 2), "batch", ("ends", 2)]
    assert told == ["a 0.5000  loss 0.5000  extra 1.0000"] * 2


def test_the_epoch_that_begins_after_an_interrupt_is_the_one_that_was_not_finished(
    compute, tmp_path
):
    begun = []

    def run(stop):
        net, x, y = problem()

        def before_epoch(epoch):
            begun.append(epoch)
            if epoch == stop:
                raise KeyboardInterrupt

        job = Job(0, compute, checkpoint=Checkpoint(tmp_path, "f"))
        fit(net, terms_of(net), [x, y], params(epochs=4), job, before_epoch=before_epoch)

    with pytest.raises(KeyboardInterrupt):
        run(3)
    run(None)
    assert begun == [1, 2, 3, 3, 4]


def test_fit_computes_in_the_precision_asked_for():
    net, x, y = problem()
    seen = []

    def terms(x, y):
        out = net(x)
        seen.append(out.dtype)
        return {"a": (out.squeeze(1) - y) ** 2}

    mixed = Compute(torch.device("cpu"), torch.bfloat16)
    history = fit(net, terms, [x, y], params(), Job(0, mixed))
    assert set(seen) == {torch.bfloat16}
    assert net.weight.dtype is torch.float32
    assert all(math.isfinite(value) for value in history["loss"])


# Interrupts


class Normed(nn.Module):
    """With statistics of its own, numbers it draws, and a layer that no gradient reaches."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(5, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x))))


def noisy(net):
    def terms(x, y):
        there = (net(x).squeeze(1).float() - y) ** 2 * torch.rand(len(x))
        shift = float(np.random.random())  # of numpy, whatever else is drawn
        return {"z": there, "a": 0.1 * (net.first(x).float().mean(1) - shift).abs()}

    return terms


SCHEDULES = {
    "constant": {},
    "staircase": {"schedule": "staircase", "decay_rate": 0.7, "decay_steps": 4},
    "one_cycle": {"schedule": "one_cycle"},
}
EPOCHS = 4


class Fitting:
    """The same training as often as asked for, which may end before an epoch does."""

    def __init__(self, folder, compute, **changes):
        self.folder, self.compute = folder, compute
        self.params = params(**{"epochs": EPOCHS, **changes})
        _, self.x, self.y = problem()

    def __call__(self, *, stop=None, fingerprint="f", keep=True):
        """Bytes of the network, the history in its order, and the epochs that were trained."""
        torch.manual_seed(5)
        net = Normed()
        torch.rand(3)
        torch.manual_seed(len(str(stop)))  # what was drawn before must not matter
        np.random.seed(len(str(stop)))
        epochs = []

        def after_epoch(epoch):
            if epoch == stop:
                raise KeyboardInterrupt
            epochs.append(epoch)
            return {"extra": float(parameters(net).sum())}

        place = Checkpoint(self.folder, fingerprint) if keep else NOWHERE
        history = fit(
            net,
            noisy(net),
            [self.x, self.y],
            self.params,
            Job(7, self.compute, checkpoint=place),
            after_epoch=after_epoch,
        )
        state = {name: t.numpy().tobytes() for name, t in net.state_dict().items()}
        return state, list(history.items()), epochs


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stop", range(1, EPOCHS + 1))
@pytest.mark.filterwarnings("error")
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, stop, schedule, precision):
    compute = Compute(torch.device("cpu"), getattr(torch, precision))
    run = Fitting(tmp_path / "kept", compute, **SCHEDULES[schedule])
    state, history, epochs = run(keep=False)
    assert epochs == [1, 2, 3, 4]
    assert not run.folder.exists()
    with pytest.raises(KeyboardInterrupt):
        run(stop=stop)
    again = run()
    assert again == (state, history, list(range(stop, EPOCHS + 1)))


def test_every_epoch_draws_numbers_of_its_own_and_the_seed_settles_them(compute):
    def drawn(seed):
        net, x, y = problem()
        seen = []

        def terms(x, y):
            seen.append((float(torch.rand(1)), float(np.random.random())))
            return terms_of(net)(x, y)

        fit(net, terms, [x, y], params(), Job(seed, compute))
        return seen

    first = drawn(0)
    assert len({*chain(*first)}) == 2 * 9
    assert drawn(0) == first
    assert not {*chain(*drawn(1))} & {*chain(*first)}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_interrupted_at_every_epoch(tmp_path, compute, schedule):
    run = Fitting(tmp_path, compute, **SCHEDULES[schedule])
    state, history, _ = run(keep=False)
    for stop in range(1, EPOCHS + 1):
        with pytest.raises(KeyboardInterrupt):
            run(stop=stop)
    assert run() == (state, history, [EPOCHS])


def test_interrupted_within_an_epoch(tmp_path, compute, monkeypatch):
    run = Fitting(tmp_path, compute)
    state, history, _ = run(keep=False)
    calls = []
    adam_step = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2 * 3 + 2:  # three steps an epoch: the second of the third
            raise KeyboardInterrupt
        return adam_step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert run() == (state, history, [3, 4])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_goes_on_where_it_was(tmp_path, monkeypatch, compute, schedule):
    seen = rates(monkeypatch, compute, epochs=EPOCHS, **SCHEDULES[schedule])
    run = Fitting(tmp_path, compute, **SCHEDULES[schedule])
    with pytest.raises(KeyboardInterrupt):
        run(stop=3)
    run()
    whole, before, after = seen[:12], seen[12:21], seen[21:]
    assert len(set(whole)) == {"constant": 1, "staircase": 3, "one_cycle": 12}[schedule]
    assert (before, after) == (whole[:9], whole[6:])


@pytest.mark.parametrize("case", ["fingerprint", "damaged"])
def test_what_cannot_be_relied_on_is_trained_anew(tmp_path, compute, case):
    run = Fitting(tmp_path, compute)
    state, history, epochs = run(keep=False)
    with pytest.raises(KeyboardInterrupt):
        run(stop=4)
    if case == "damaged":
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-1])
        assert run() == (state, history, epochs)
    else:
        assert run(fingerprint="g") == (state, history, epochs)


def test_scaling_of_float16_goes_on(tmp_path):
    """Losses near the top of float16: the scale falls early, and must stay fallen."""
    compute = Compute(torch.device("cpu"), torch.float16)

    def run(stop=None):
        net, x, y = problem()
        net = nn.Sequential(net)
        place = Checkpoint(tmp_path, "f")

        def terms(x, y):
            return {"a": (300 * net(x).squeeze(1).float() - y) ** 2}

        def after_epoch(epoch):
            if epoch == stop:
                raise KeyboardInterrupt
            return {}

        job = Job(0, compute, checkpoint=place)
        fit(net, terms, [x, y], params(), job, after_epoch=after_epoch)
        return parameters(net).numpy().tobytes()

    whole = run()
    tmp_path.joinpath("epoch.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(stop=3)
    scale = Checkpoint(tmp_path, "f").load("epoch")[1]["state"]["scaler"]["scale"]
    assert scale < 65536
    assert run() == whole


def test_train_classifier_says_where_it_goes_on(tmp_path, train, held_out, trained, compute):
    x, y = train[0][:100], train[1][:100]
    said = []

    def advance(note="", steps=1, *, resumed=False):
        if len(said) == stop:
            raise KeyboardInterrupt
        said.append((steps, resumed, note.split("  ")[0] if resumed else ""))

    def run(place):
        torch.manual_seed(1)
        net = type(trained)()
        job = Job(0, compute, advance, place)
        history = train_classifier(net, (x, y), held_out, params(), job)
        return parameters(net).numpy().tobytes(), history

    stop = None
    whole = run(NOWHERE)
    said.clear()
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path, "f"))
    said.clear()
    stop = None
    assert run(Checkpoint(tmp_path, "f")) == whole
    assert said == [(2, True, "resumed after epoch 2"), (1, False, "")]


# Prediction and accuracy


class Fixed(nn.Module):
    """Says the class that the first pixel names."""

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 10).float()


def named(*classes):
    return torch.tensor(classes, dtype=torch.float32).view(-1, 1, 1, 1)


def test_predict_joins_batches_in_order_and_in_eval_mode():
    net = nn.Sequential(Fixed(), nn.Dropout(0.9)).train()
    x = named(*[i % 10 for i in range(23)])
    for size in (1, 5, 23, 100):
        assert predict(net, x, size).argmax(1).tolist() == [i % 10 for i in range(23)]
    assert not net.training
    assert predict(net, x[:0]).shape == (0, 10)


def test_predict_keeps_no_graph():
    assert not predict(nn.Linear(3, 2), torch.rand(4, 3)).requires_grad


def test_accuracy_by_hand():
    x, y = named(1, 2, 3, 4), torch.tensor([1, 2, 0, 4])
    assert accuracy(Fixed(), x, y) == 0.75
    assert math.isnan(accuracy(Fixed(), x[:0], y[:0]))


def test_watch_accuracy_where_there_is_something_to_watch():
    x, y = named(1, 2, 3, 4), torch.tensor([1, 2, 0, 4])
    assert watch_accuracy(Fixed(), (x, y))(1) == {"val_accuracy": 0.75}
    assert watch_accuracy(Fixed(), (x[:0], y[:0]))(2) == {}


# Classifiers


def test_train_classifier_learns_and_watches(train, held_out, trained, compute):
    torch.manual_seed(1)
    net = type(trained)()
    x, y = train[0][:300], train[1][:300]
    untrained = accuracy(net, *held_out)
    said = []
    budget = params(epochs=5, batch_size=16, learning_rate=3e-3)
    job = Job(0, compute, said.append)
    history = train_classifier(net, (x, y), held_out, budget, job)
    assert set(history) == {"loss", "cross_entropy", "val_accuracy"}
    assert history["val_accuracy"][-1] == accuracy(net, *held_out) > max(untrained, 0.2)
    assert history["loss"] == history["cross_entropy"]
    assert history["loss"][-1] < history["loss"][0]
    assert len(said) == 5


def test_train_classifier_minimises_cross_entropy(train, nothing, trained, compute):
    """One whole batch: the first loss is the fresh network's."""
    torch.manual_seed(1)
    net = type(trained)()
    x, y = train[0][:50], train[1][:50]
    wide = copy.deepcopy(net).double()
    with torch.no_grad():
        rows = zip(wide(x.double()).tolist(), y.tolist(), strict=True)
    each = [math.log(sum(math.exp(v) for v in logits)) - logits[k] for logits, k in rows]
    history = train_classifier(
        net, (x, y), nothing, params(epochs=1, batch_size=50), Job(0, compute)
    )
    assert history == {key: [pytest.approx(sum(each) / 50, rel=1e-5)] for key in history}
    assert set(history) == {"loss", "cross_entropy"}


def test_fixture_classifies_well_but_not_perfectly(target_net, train, held_out):
    assert 0.8 < accuracy(target_net, *train) < 1
    assert 0.7 < accuracy(target_net, *held_out) < 1
    assert predict(target_net, train[0][:1]).shape == (1, 10)
