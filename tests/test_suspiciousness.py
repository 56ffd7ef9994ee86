"""Spectra counted image by image, the three formulas as scalars, and how units are chosen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from deepcustom.attacks.suspiciousness import (
    FORMULAS,
    HitSpectrum,
    dstar,
    ochiai,
    suspicious_units,
    tarantula,
)
from deepcustom.training.nets.base import Classifier


def spectrum(a_s, a_f, n_s, n_f):
    return HitSpectrum(*(torch.tensor([v], dtype=torch.float64) for v in (a_s, a_f, n_s, n_f)))


def count(active, success):
    """(as, af, ns, nf) of one unit, image by image."""
    counts = [0, 0, 0, 0]
    for on, good in zip(active, success, strict=True):
        counts[(0 if on else 2) + (0 if good else 1)] += 1
    return tuple(counts)


def divide(top, bottom):
    return top / bottom if bottom else 0.0


def scalar_tarantula(a_s, a_f, n_s, n_f):
    failed, passed = divide(a_f, a_f + n_f), divide(a_s, a_s + n_s)
    return divide(failed, failed + passed)


def scalar_ochiai(a_s, a_f, n_s, n_f):
    return divide(a_f, math.sqrt((a_f + n_f) * (a_f + a_s)))


def scalar_dstar(a_s, a_f, n_s, n_f):
    return divide(a_f**3, a_s + n_f)


SCALAR = {"tarantula": scalar_tarantula, "ochiai": scalar_ochiai, "dstar": scalar_dstar}


def test_spectrum_against_loops():
    rng = torch.Generator().manual_seed(0)
    active = torch.rand(40, 3, 4, 5, generator=rng) > 0.6
    success = torch.rand(40, generator=rng) > 0.3
    found = HitSpectrum.of(active, success)
    for place in [(c, i, j) for c in range(3) for i in range(4) for j in range(5)]:
        four = (found.active_success, found.active_failure, found.inactive_success,
                found.inactive_failure)  # fmt: skip
        expected = count([image[place] for image in active], success)
        assert tuple(int(counts[place]) for counts in four) == expected
        assert sum(expected) == 40


@pytest.mark.parametrize("name", SCALAR)
def test_formulas_against_scalars(name):
    assert set(SCALAR) == set(FORMULAS)
    cases = [
        (a, b, c, d) for a in range(4) for b in range(4) for c in range(4) for d in range(4)
        if name != "dstar" or a + d or not b  # see the next test but one
    ]  # fmt: skip
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*cases, strict=True)]
    expected = [SCALAR[name](*case) for case in cases]
    assert FORMULAS[name](HitSpectrum(*columns)).tolist() == pytest.approx(expected, abs=1e-15)


def test_formulas_worked_by_hand():
    """3 failures, 2 of them activate; 4 successes, 1 activates."""
    s = spectrum(1, 2, 3, 1)
    assert float(tarantula(s)) == pytest.approx((2 / 3) / (2 / 3 + 1 / 4))  # 8/11
    assert float(ochiai(s)) == pytest.approx(2 / 3)
    assert float(dstar(s)) == pytest.approx(8 / 2)
    assert float(dstar(s, star=2)) == pytest.approx(4 / 2)


@pytest.mark.parametrize("formula", [tarantula, ochiai, dstar])
def test_undefined_is_zero(formula):
    assert float(formula(spectrum(0, 0, 0, 0))) == 0
    assert float(formula(spectrum(0, 0, 5, 0))) == 0  # never active, never failed
    assert float(formula(spectrum(0, 0, 5, 5))) == 0  # never active
    assert float(formula(spectrum(5, 0, 0, 0))) == 0  # always active, never failed


# A classifier whose every pre-activation is written in its image.


class Written(Classifier):
    """Reads 3 maps of 2x2, 2 dense units, 3 more, and 3 logits from the pixels of its image."""

    def preactivations(self, x):
        flat = x.flatten(1)
        seen = {
            "conv1": flat[:, :12].view(-1, 3, 2, 2),
            "dense1": flat[:, 12:14],
            "dense2": flat[:, 14:17],
        }
        return seen, flat[:, 17:20]


def written(n, seed=0):
    """Images for :class:`Written`, about half of whose units are active, and labels."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 4, 5, generator=rng), torch.arange(n) % 3


def scores_by_hand(x, y, label, formula, threshold=0.0):
    """Score of each of the 17 units for a class."""
    mine = [image.flatten().tolist() for image, its in zip(x, y, strict=True) if its == label]
    success = [image[17:].index(max(image[17:])) == label for image in mine]
    units = []
    for unit in range(17):
        active = [max(image[unit], 0) > threshold for image in mine]
        units.append(SCALAR[formula](*count(active, success)))
    return units


@pytest.mark.parametrize(
    ("formula", "threshold"), [("tarantula", 0.0), ("ochiai", 0.7), ("dstar", 0.2)]
)
def test_scores_of_units_and_maps(formula, threshold):
    x, y = written(300)
    found = suspicious_units(Written(), x, y, 3, k=2, threshold=threshold, formula=formula)
    assert {layer: tuple(t.shape) for layer, t in found.scores.items()} == {
        "conv1": (3, 3),
        "dense1": (3, 2),
        "dense2": (3, 3),
    }
    for label in range(3):
        units = scores_by_hand(x, y, label, formula, threshold)
        maps = [sum(units[4 * m : 4 * m + 4]) / 4 for m in range(3)]
        assert found.scores["conv1"][label].tolist() == pytest.approx(maps, rel=1e-6)
        assert found.scores["dense1"][label].tolist() == pytest.approx(units[12:14], rel=1e-6)
        assert found.scores["dense2"][label].tolist() == pytest.approx(units[14:17], rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_dense_layers_are_ranked_together_and_each_convolution_alone(k):
    x, y = written(300)
    found = suspicious_units(Written(), x, y, 3, k=k)
    assert {layer: t.dtype for layer, t in found.suspicious.items()} == dict.fromkeys(
        ("conv1", "dense1", "dense2"), torch.bool
    )
    for label in range(3):
        dense = [*found.scores["dense1"][label].tolist(), *found.scores["dense2"][label].tolist()]
        best = sorted(range(5), key=lambda i: (-dense[i], i))[:k]
        marks = [*found.suspicious["dense1"][label].tolist(),
                 *found.suspicious["dense2"][label].tolist()]  # fmt: skip
        assert [i for i, mark in enumerate(marks) if mark] == sorted(best)
        maps = found.scores["conv1"][label].tolist()
        best = sorted(range(3), key=lambda i: (-maps[i], i))[:k]
        marks = found.suspicious["conv1"][label].tolist()
        assert [i for i, mark in enumerate(marks) if mark] == sorted(best)


def test_of_equals_the_earlier_unit_wins():
    x = torch.zeros(4, 1, 4, 5)
    x[:, 0].view(4, 20)[:, 12:17] = 1.0  # every dense unit always active: equal scores
    x[:, 0].view(4, 20)[0, 18] = 1.0  # one failure
    found = suspicious_units(Written(), x, torch.zeros(4, dtype=torch.int64), 1, k=3)
    assert found.failures.tolist() == [1]
    assert found.suspicious["dense1"].tolist() == [[True, True]]
    assert found.suspicious["dense2"].tolist() == [[True, False, False]]


def test_of_many_equals_the_earlier_units_win():
    class Wide(Classifier):
        """600 units that are always active."""

        def preactivations(self, x):
            return {"dense1": torch.ones(len(x), 600)}, torch.eye(2)[[0, 1]].repeat(len(x) // 2, 1)

    found = suspicious_units(Wide(), torch.zeros(4, 1, 1, 1), torch.zeros(4).long(), 1, k=20)
    assert found.failures.tolist() == [2]
    assert found.suspicious["dense1"][0].nonzero().flatten().tolist() == list(range(20))


def test_threshold_is_exclusive():
    x = torch.zeros(2, 1, 4, 5)
    flat = x.view(2, 20)
    flat[:, 12] = 0.5
    flat[0, 18] = 1.0  # the first fails, the second succeeds
    y = torch.zeros(2, dtype=torch.int64)
    at = suspicious_units(Written(), x, y, 1, k=1, threshold=0.5).scores["dense1"][0, 0]
    below = suspicious_units(Written(), x, y, 1, k=1, threshold=0.49).scores["dense1"][0, 0]
    assert (float(at), float(below)) == (0.0, 0.5)


def test_class_without_failures_has_nothing_chosen():
    x, y = written(90)
    x.view(90, 20)[torch.arange(90), 17 + y] = 100.0  # all right
    x.view(90, 20)[0, 18] = 1000.0  # but one, of class 0
    found = suspicious_units(Written(), x, y, 3, k=2)
    assert found.failures.tolist() == [1, 0, 0]
    assert found.failures.dtype is torch.int64
    for layer, marks in found.suspicious.items():
        assert not marks[1:].any(), layer
    assert found.suspicious["conv1"][0].sum() == 2
    assert found.suspicious["dense1"][0].sum() + found.suspicious["dense2"][0].sum() == 2


def test_class_without_images():
    x, y = written(30)
    found = suspicious_units(Written(), x, y, 5, k=2)
    assert found.failures[3:].tolist() == [0, 0]
    for layer in found.scores:
        assert not found.scores[layer][3:].any()
        assert not found.suspicious[layer][3:].any()


def test_more_than_there_are_chooses_all():
    x, y = written(90)
    found = suspicious_units(Written(), x, y, 3, k=99)
    assert found.failures.all()
    assert all(marks.all() for marks in found.suspicious.values())


def test_many_images_are_counted_over_all_batches():
    x, y = written(20)
    once = suspicious_units(Written(), x, y, 3, k=2)
    many = suspicious_units(Written(), x.repeat(400, 1, 1, 1), y.repeat(400), 3, k=2)
    assert many.failures.tolist() == [400 * n for n in once.failures.tolist()]
    for layer in once.scores:
        torch.testing.assert_close(many.scores[layer], once.scores[layer])


def test_mnist_classifier_against_hooks_on_its_relus(target_net, train):
    """Active is what the ReLU lets through, seen from outside."""
    x, y = train[0][:300], train[1][:300]
    found = suspicious_units(target_net, x, y, 10, k=20)
    assert {tuple(t.shape) for t in found.scores.values()} == {(10, 30)}
    after: dict[str, torch.Tensor] = {}
    for name, relu in target_net.relu.items():
        relu.register_forward_hook(lambda _, __, out, name=name: after.update({name: out}))
    right = target_net(x).argmax(1) == y
    for label in range(10):
        rows = y == label
        failures = int((~right[rows]).sum())
        assert int(found.failures[label]) == failures
        chosen = sum(int(marks[label].sum()) for marks in found.suspicious.values())
        assert chosen == (20 if failures else 0)
        for name, outputs in after.items():
            for unit in (0, 7, 29):
                four = count((outputs[rows, unit] > 0).tolist(), right[rows].tolist())
                expected = scalar_tarantula(*four)
                assert float(found.scores[name][label, unit]) == pytest.approx(expected, rel=1e-6)


def test_linear_layers_are_the_dense_ones(target_net):
    dense = [m for m in target_net.modules() if isinstance(m, nn.Linear)]
    seen, _ = target_net.preactivations(torch.zeros(1, 1, 28, 28))
    assert all(name.startswith("dense") for name in seen)
    assert len(seen) == len(dense) - 1
