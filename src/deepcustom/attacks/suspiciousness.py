"""Which units a class's failures point at: spectrum-based fault localisation on activations.

A unit's *hit spectrum* over the images of one class counts how often it was active or inactive when the
network succeeded or failed (DeepFault, Eniser et al. 2019). Tarantula (Jones and Harrold 2005), Ochiai
(Abreu et al. 2006) and D* (Wong et al. 2014) turn the four counts into one score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcustom.training.nets.base import Classifier
from deepcustom.training.rows import Images


@dataclass(frozen=True)
class HitSpectrum:
    """Counts per unit, float64 tensors of one shape.

    Attributes:
        active_success, active_failure, inactive_success, inactive_failure: how many images fall in each
            of the four; they sum to the number of images.
    """

    active_success: Tensor
    active_failure: Tensor
    inactive_success: Tensor
    inactive_failure: Tensor

    @classmethod
    def of(cls, active: Tensor, success: Tensor) -> HitSpectrum:
        """Count over N images.

        Args:
            active: (N, ...) bool, whether each unit was active on each image.
            success: (N,) bool, whether the network classified the image correctly.
        """
        good = success.double()
        a_s = active[success].sum(0).double()
        a_f = active[~success].sum(0).double()
        return cls(a_s, a_f, good.sum() - a_s, (1 - good).sum() - a_f)

    def __add__(self, other: HitSpectrum) -> HitSpectrum:
        """The counts over the images of both."""
        return HitSpectrum(
            self.active_success + other.active_success,
            self.active_failure + other.active_failure,
            self.inactive_success + other.inactive_success,
            self.inactive_failure + other.inactive_failure,
        )


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """The quotient, 0 where it is undefined."""
    return torch.where(bottom > 0, top / bottom.clamp(min=torch.finfo(bottom.dtype).tiny), 0.0)


def tarantula(s: HitSpectrum) -> Tensor:
    """Failure share over failure share plus success share.

    The failure share is the share of all failures that activate the unit; the success share likewise.
    """
    failed = _ratio(s.active_failure, s.active_failure + s.inactive_failure)
    passed = _ratio(s.active_success, s.active_success + s.inactive_success)
    return _ratio(failed, failed + passed)


def ochiai(s: HitSpectrum) -> Tensor:
    """Active failures over the geometric mean of all failures and all activations."""
    failures = s.active_failure + s.inactive_failure
    return _ratio(s.active_failure, (failures * (s.active_failure + s.active_success)).sqrt())


def dstar(s: HitSpectrum, star: int = 3) -> Tensor:
    """Active failures to the power ``star``, over active successes plus inactive failures.

    Infinite for the ideal culprit, which is active on every failure and on no success.
    """
    top, bottom = s.active_failure**star, s.active_success + s.inactive_failure
    return torch.where((bottom == 0) & (top > 0), torch.inf, _ratio(top, bottom))


FORMULAS: Mapping[str, Callable[[HitSpectrum], Tensor]] = {
    "tarantula": tarantula,
    "ochiai": ochiai,
    "dstar": dstar,
}


@dataclass(frozen=True)
class Suspiciousness:
    """What the analysis found, one row per class.

    Attributes:
        scores: layer → (classes, units); for a convolution (classes, maps), the mean score of a map's units.
        suspicious: layer → bool of the same shape, True for the chosen ones.
        failures: (classes,) int64, how many images of the class the network got wrong. A class without
            failures has no spectrum, and nothing is chosen for it.
    """

    scores: dict[str, Tensor]
    suspicious: dict[str, Tensor]
    failures: Tensor


@torch.no_grad()
def suspicious_units(
    target_net: Classifier,
    x: Images,
    y: Tensor,
    num_classes: int,
    *,
    k: int,
    threshold: float = 0.0,
    formula: str = "tarantula",
) -> Suspiciousness:
    """The ``k`` most suspicious units of each class over all dense layers together, and its ``k`` most
    suspicious maps of each convolution.

    Args:
        target_net: the network under test.
        x: images (N, C, H, W) in [0, 1], of the train split.
        y: labels (N,).
        num_classes: how many classes there are.
        k: how many to choose; all of them where a group has fewer.
        threshold: a unit is active where its ReLU's output exceeds this.
        formula: ``tarantula``, ``ochiai`` or ``dstar``.
    """
    # Score every unit, or map, for each class.
    rows: dict[str, list[Tensor]] = {}
    dense: dict[str, None] = {}
    failures = []
    for label in range(num_classes):
        spectra, failed = _class_spectra(target_net, x[y == label], label, threshold)
        failures.append(failed)
        for layer, spectrum in spectra.items():
            score = FORMULAS[formula](spectrum)
            if score.dim() == 1:
                dense[layer] = None
            rows.setdefault(layer, []).append(
                score.flatten(1).mean(1) if score.dim() > 1 else score
            )
    scores = {layer: torch.stack(values).float() for layer, values in rows.items()}
    failures_seen = torch.tensor(failures)
    # Choose among all dense layers together, and in each convolution by itself.
    groups = [list(dense), *([layer] for layer in scores if layer not in dense)]
    suspicious: dict[str, Tensor] = {}
    for group in groups:
        suspicious |= _choose({layer: scores[layer] for layer in group}, k, failures_seen > 0)
    return Suspiciousness(scores, {layer: suspicious[layer] for layer in scores}, failures_seen)


def _class_spectra(
    net: Classifier, x: Images, label: int, threshold: float, batch_size: int = 1000
) -> tuple[dict[str, HitSpectrum], int]:
    """The spectra of every layer over the images of one class, and how many images the network got wrong."""
    spectra: dict[str, HitSpectrum] = {}
    failed = 0
    for start in range(0, max(len(x), 1), batch_size):
        seen, logits = net.preactivations(x[start : start + batch_size])
        right = logits.argmax(1) == label
        failed += int((~right).sum())
        for layer, values in seen.items():
            counted = HitSpectrum.of(values.relu() > threshold, right)
            spectra[layer] = spectra[layer] + counted if layer in spectra else counted
    return spectra, failed


def _choose(scores: dict[str, Tensor], k: int, has_spectrum: Tensor) -> dict[str, Tensor]:
    """Mark the ``k`` highest scores of each class over all given layers; of equal ones the earlier wins."""
    if not scores:
        return {}
    together = torch.cat(list(scores.values()), dim=1)
    order = torch.sort(together, dim=1, descending=True, stable=True).indices[:, :k]
    chosen = torch.zeros_like(together, dtype=torch.bool).scatter_(1, order, True)
    chosen &= has_spectrum.view(-1, 1).to(chosen.device)
    widths = [values.shape[1] for values in scores.values()]
    return dict(zip(scores, torch.split(chosen, widths, dim=1), strict=True))
