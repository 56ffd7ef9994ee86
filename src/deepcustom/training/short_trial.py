"""Tries a network on a few images, since a user's own may do anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError, one_line
from deepcustom.training.compute import Compute

COUNTS = (2, 3)
"""Of so many images a network is given at a time."""
NOISE = 1e-2  # of the largest logit: what rounding may change, and mixing images changes by more


def check_outputs(
    net: nn.Module, shape: tuple[int, int, int], classes: int, compute: Compute, what: str
) -> None:
    """Check that a network turns images into logits, each image by itself, and has a gradient.

    Args:
        net: the network; left in eval mode.
        shape: (C, H, W) of an image.
        classes: how many logits it should give.
        compute: where it lies.
        what: what to call it.

    Raises:
        InputError: in one line: it refuses images, changes them, mixes those of a batch, gives something else
            than finite logits (N, classes), or has no finite gradient with respect to the images.
    """
    net.eval()
    trial = _Trial(net, classes, what)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(max(COUNTS), *shape, generator=generator).to(compute.device)
    with torch.no_grad():
        few, more = (trial.logits(x[:count]) for count in COUNTS)
        again = trial.logits(x[: len(few)])
    trial.check_alone(few, again, more[: len(few)])
    trial.check_gradient(x)


@dataclass(frozen=True)
class _Trial:
    net: nn.Module
    classes: int
    what: str

    def logits(self, x: Tensor) -> Tensor:
        """What the network makes of images (N, C, H, W), checked."""
        given = x.clone()
        out = self._run(given)
        want = (len(x), self.classes)
        if not isinstance(out, Tensor) or tuple(out.shape) != want:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise self._wrong(f"gives {found}, want logits of shape {want}")
        if not out.is_floating_point():
            raise self._wrong(f"gives {out.dtype}, want logits, which are floating-point numbers")
        if not bool(out.isfinite().all()):
            raise self._wrong("gives logits that are not finite")
        if not torch.equal(given, x):
            raise self._wrong("changes the images that it is given: let it work on a copy")
        return out

    def check_alone(self, logits: Tensor, again: Tensor, in_company: Tensor) -> None:
        """Check that an image's logits do not depend on the others of its batch.

        Of a network that answers at random, ``again`` tells, and the evaluation says so.
        """
        noise = NOISE * logits.abs().max()
        if (logits - again).abs().max() <= noise < (logits - in_company).abs().max():
            raise self._wrong(
                "mixes the images of a batch: the logits of one should not depend on the others"
            )

    def check_gradient(self, x: Tensor) -> None:
        """Check that there is a finite gradient with respect to images (N, C, H, W)."""
        x = x.clone().requires_grad_()
        with torch.enable_grad():
            out = self._run(x)
        try:
            found = torch.autograd.grad(out.sum(), x, allow_unused=True)[0]
        except RuntimeError:  # nothing of it was recorded
            found = None
        if found is None:
            raise self._wrong(
                "has no gradient with respect to the images, which attacks and generators need: it should "
                "not detach them, nor compute without gradients"
            )
        if not bool(found.isfinite().all()):
            raise self._wrong("has a gradient with respect to the images that is not finite")

    def _run(self, x: Tensor) -> Tensor:
        try:
            out: Tensor = self.net(x)
        except InputError as error:  # of its wrapper
            raise self._wrong(str(error)) from None
        except Exception as error:  # the network may raise anything
            reason = one_line(error)
            shape = tuple(x.shape[1:])
            raise self._wrong(f"refuses {len(x)} images of shape {shape}: {reason}") from error
        return out

    def _wrong(self, why: str) -> InputError:
        return InputError(f"{self.what}: the network {why}")
