"""A network tried as attacks will use it, before the long wait: on real images, with and without gradients.

What can be healed safely is healed (:class:`~deepcustom.training.nets.healed.Remedy`), what is odd is noted,
and what would make scores meaningless is refused, each in one line that names the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError, some_of
from deepcustom.training.chance import HINT, Guessing
from deepcustom.training.compute import Compute
from deepcustom.training.kept import State
from deepcustom.training.nets.exported import Exported
from deepcustom.training.nets.healed import Healed, Remedy
from deepcustom.training.prediction import BATCH, gets_right, predict
from deepcustom.training.rows import Images
from deepcustom.training.trial_calls import Calls, first_call, largest, sizes_it_takes
from deepcustom.training.weights import has_weights

ALIKE, ALIKE_HALF = 1e-3, 5e-2  # relative difference of answers that rounding may make


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        net: the network as attacks may use it: itself, or with what it lacks put around it.
        remedy: what was put around it.
        notes: a line each: what was healed, and what is suspicious.
        gradient: whether a gradient reaches the images.
    """

    net: nn.Module
    remedy: Remedy
    notes: tuple[str, ...]
    gradient: bool


def tried(
    net: nn.Module,
    x: Images,
    y: Tensor,
    classes: int,
    compute: Compute,
    what: str,
    *,
    sizes: Sequence[int] = (BATCH,),
    shown: Sequence[int] = (),
) -> Trial:
    """Try a network on images as attacks will use it.

    Args:
        net: images (N, C, H, W) in [0, 1] to logits (N, classes); put in eval mode. At the end its parameters
            and buffers are as before.
        x: real images (n, C, H, W), float32 in [0, 1], 1 or more; all are predicted, and as many as the
            largest of ``sizes`` get a gradient.
        y: true labels (n,).
        classes: how many logits it should give.
        compute: where attacks compute.
        what: what to call the network in notes and errors.
        sizes: numbers of images that attacks give it at once; one image alone is tried too.
        shown: numbers of images that it is given at once where no gradient is asked for.

    Raises:
        InputError: in one line: the network cannot be scored, why, and what to change; or a label is none.
    """
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise InputError(
            f"labels must be 0 to {classes - 1}, found {int(y.min())} to {int(y.max())}"
        )
    has_weights(net, what)
    net = _in_eval_mode(net)
    state = State.of(net)
    few = x[: max(sizes)].to(compute.device, torch.float32)
    calls = Calls(net, few, y[: len(few)].to(compute.device), what)
    notes: list[str] = []
    try:
        remedy = first_call(calls, classes, compute)
        notes += _healed_so_far(calls, remedy)
        remedy = sizes_it_takes(calls, remedy, (*sizes, *shown))
        notes += _bounds(calls, remedy)
        notes += _answers_twice(calls, remedy, state)
        remedy, more = _gradient(calls, remedy, max(sizes))
        notes += more
        remedy = _no_images(calls, remedy)
        healed = Healed(net, remedy) if remedy.needed else net
        notes += _all_answers(healed, x, y, calls, classes)
    finally:
        state.restore()
    return Trial(healed, remedy, tuple(notes), calls.gradient)


def _in_eval_mode(net: nn.Module) -> nn.Module:
    """The network in eval mode; an exported program refuses to change its mode, and is wrapped."""
    try:
        return net.eval()
    except NotImplementedError:
        return Exported(net)


def _healed_so_far(calls: Calls, remedy: Remedy) -> list[str]:
    notes, what = [], calls.what
    if remedy.take:
        notes.append(
            f"{what}: it gives more than logits; those are taken from {calls.spelt(remedy.take)!r}"
        )
    if remedy.dtype:
        notes.append(f"{what}: its weights are {remedy.dtype}, so images are cast to it")
    if remedy.recast and calls.format != "float32":
        notes.append(f"{what}: its logits are {calls.format}, and are cast to float32")
    if remedy.device:
        notes.append(f"{what}: it computes on {remedy.device}, so images are moved there and back")
    if remedy.copy:
        notes.append(f"{what}: it writes into the images that it is given, so it gets a copy")
    return notes


def _bounds(calls: Calls, remedy: Remedy) -> list[str]:
    if remedy.most is None:
        return []
    if remedy.exact:
        how = f"exactly {remedy.most} images at a time: batches are split and filled up"
    else:
        how = f"at most {remedy.most} images at a time: larger batches are split"
    return [f"{calls.what}: it takes {how}"]


def _answers_twice(calls: Calls, remedy: Remedy, state: State) -> list[str]:
    """Compare answers to the same images: twice, and beside other images; and look at what it remembers."""
    what, few = calls.what, calls.x[: remedy.most or BATCH]
    state.restore()
    first = calls.answer(remedy, few)
    second = calls.answer(remedy, few)
    changed = state.changed()
    names = some_of(changed, 3)
    state.restore()
    if not _alike(first, second, calls, exact=True):
        if changed and _alike(first, calls.answer(remedy, few), calls, exact=True):
            raise InputError(
                f"{what}: every pass changes its {names}, and its answers with them, so they depend on what "
                "it was shown before: leave its weights and buffers as they are in eval mode"
            )
        return [
            f"{what}: it answers the same images differently each time; see the check deterministic"
        ]
    state.restore()
    _alone_and_together(calls, remedy, names)
    return [f"{what}: every pass changes its {names}; its answers stay the same"] if changed else []


def _alone_and_together(calls: Calls, remedy: Remedy, changed: str) -> None:
    """Refuse a network whose answer to one image changes with the images beside it."""
    half = min(len(calls.x) // 2, remedy.most or len(calls.x), 16)
    if half < 2:
        return
    image, left, right = calls.x[:1], calls.x[1:half], calls.x[half : 2 * half - 1].flip(0)
    beside = [calls.answer(remedy, torch.cat([image, others]))[:1] for others in (left, right)]
    dark = calls.answer(remedy, torch.cat([image, torch.zeros_like(left)]))[:1]
    if all(_alike(beside[0], other, calls) for other in (beside[1], dark)):
        return
    why = f", and it changes {changed}: batch norm in training mode?" if changed else ""
    raise InputError(
        f"{calls.what}: its answer to an image depends on the other images of the batch{why or ':'} it must "
        "answer each image by itself"
    )


def _gradient(calls: Calls, remedy: Remedy, most: int) -> tuple[Remedy, list[str]]:
    """Ask for a gradient to the images, ``most`` at once, and compare the logits with those without."""
    what, few = calls.what, calls.x
    plain = calls.answer(remedy, few)
    try:
        logits, gradient = calls.with_gradient(remedy, few)
        if most > len(few):
            calls.with_gradient(remedy, calls.images(most))
    except Exception as error:  # the network may raise anything
        return _without_gradient(calls, remedy, most, error)
    if not _alike(plain, logits, calls) and _alike(
        plain, calls.answer(remedy, few), calls, exact=True
    ):
        raise InputError(
            f"{what}: it gives other logits where a gradient is asked for than where none is, so attacks "
            "would see another network than the one that is scored: let both be the same"
        )
    calls.gradient = gradient is not None
    if gradient is None:
        return remedy, [
            f"{what}: no gradient reaches its images (detach, no_grad, inference_mode, numpy?), so only "
            "attacks that need none (black-box) can judge it"
        ]
    flat = gradient.flatten(1)
    known = ~plain.isnan().any(1)
    counts = {
        "zero": int(((flat == 0).all(1) & known).sum()),
        "not finite": int((~flat.isfinite().all(1) & known).sum()),
    }
    return remedy, [
        f"{what}: the gradient of {count} of {len(few)} images is {kind}, so attacks that follow gradients "
        "are weak there; see the check gradients"
        for kind, count in counts.items()
        if count > 0.01 * len(few)
    ]


def _without_gradient(
    calls: Calls, remedy: Remedy, most: int, error: Exception
) -> tuple[Remedy, list[str]]:
    """What to do if no gradient can be had for ``most`` images at once."""

    def works(n: int) -> bool:
        try:
            calls.with_gradient(replace(remedy, most=n), calls.images(n))
        except Exception:  # the network may raise anything
            return False
        return True

    if most > 1 and works(1):  # memory, mostly
        most = largest(works, 1, remedy.most or most)
        note = (
            f"{calls.what}: a gradient for more than {most} images at once fails ({calls.reason(error)}), so "
            "larger batches are split"
        )
        calls.gradient = True
        return replace(remedy, most=most), [note]
    note = (
        f"{calls.what}: it fails where a gradient is asked for ({calls.reason(error)}), so it is called "
        "without: only attacks that need no gradient (black-box) can judge it"
    )
    return replace(remedy, blind=True), [note]


def _no_images(calls: Calls, remedy: Remedy) -> Remedy:
    """Look whether it takes a batch of no images, as a set may be from which nothing is left."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of numbers of nothing
            calls.answer(remedy, calls.x[:0])
    except Exception:  # the network may raise anything
        return replace(remedy, empty=True)
    return remedy


def _all_answers(net: nn.Module, x: Images, y: Tensor, calls: Calls, classes: int) -> list[str]:
    """Predict all images: which have no answer, and is it better than guessing?"""
    what, logits = calls.what, predict(net, x)
    y = y.to(logits.device)
    lost = int(logits.isnan().any(1).sum())
    if lost == len(logits):
        raise InputError(
            f"{what}: the network gives nan, so logits that are not finite, for all {lost} images"
        )
    notes = []
    if lost:
        notes.append(
            f"{what}: it gives nan for {lost} of {len(logits)} images, which count as wrong"
        )
    infinite = int((logits.isinf().any(1) & ~logits.isnan().any(1)).sum())
    if infinite:
        notes.append(f"{what}: it gives infinite logits for {infinite} of {len(logits)} images")
    kept = logits[~logits.isnan().any(1)]
    unlike = bool((calls.x != calls.x[:1]).any())
    if unlike and len(kept) > 1 and bool((kept == kept[0]).all()):
        raise InputError(
            f"{what}: it gives the same logits for all {len(kept)} images, so it does not look at them: are "
            "these the right weights, and images in [0, 1] what it wants?"
        )
    if bool((kept >= 0).all()) and bool((kept <= 1).all()):
        notes.append(
            f"{what}: all its logits lie between 0 and 1, as after a softmax or sigmoid, which flattens "
            "gradients: give what goes into it"
        )
    guessing = Guessing.of(gets_right(logits, y), y, classes)
    if guessing.near_chance:
        notes.append(f"{what}: it {guessing}: {HINT}")
    return notes


def _alike(a: Tensor, b: Tensor, calls: Calls, *, exact: bool = False) -> bool:
    """Whether two answers to the same images are the same, up to rounding."""
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = a.nan_to_num(), b.nan_to_num()
    largest = max(1.0, float(a.abs().max())) if a.numel() else 1.0
    tolerance = 1e-5 if exact else ALIKE_HALF if calls.coarse else ALIKE
    return bool(((a - b).abs() <= tolerance * largest).all())
