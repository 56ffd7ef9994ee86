"""Data generator networks: train one per class, keep them as a bank, make images with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepcustom import nets
from deepcustom.checkpoint import NOWHERE, Checkpoint
from deepcustom.compute import Compute, derive_seed, seed_everything
from deepcustom.errors import InputError, LossError
from deepcustom.losses import LossContext, build_loss
from deepcustom.params import TrainDgnParams
from deepcustom.progress import Advance, silent
from deepcustom.threat import ThreatModel
from deepcustom.training import History, accuracy, epochs_kept, fit
from deepcustom.weights import load_state, load_tensors, save_tensors

Output = Literal["image", "perturbation"]


def propose(net: nn.Module, x: Tensor, output: Output, threat: ThreatModel) -> Tensor:
    """What a DGN offers for ``x``, before the projection.

    Args:
        net: the generator, images to images in [0, 1].
        x: clean images (N, C, H, W) in [0, 1].
        output: ``image``: the generator's output itself; ``perturbation``: clip(x + eps * (2 s - 1))
            for its output s, which lies in the ball by construction.
        threat: gives eps.

    Returns:
        Images like ``x`` in [0, 1].
    """
    s: Tensor = net(x).float()
    return s if output == "image" else (x + threat.eps * (2 * s - 1)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class DGNBank:
    """One DGN per class, and how their output is to be read.

    Attributes:
        dataset: name of the data set, which fixes the architecture.
        loss: the loss they were trained on.
        output: ``image`` or ``perturbation``.
        generators: one per class, in eval mode.
    """

    dataset: str
    loss: str
    output: Output
    generators: list[nn.Module]

    @torch.no_grad()
    def generate(
        self,
        x: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        compute: Compute,
        batch_size: int = 200,
    ) -> Tensor:
        """Adversarial images, one forward pass each.

        Args:
            x: clean images (N, C, H, W), float32 in [0, 1].
            labels: (N,) int64, which class's DGN makes each image.
            threat: what the result is projected to.
            compute: device and precision.
            batch_size: images per pass at most.

        Returns:
            (N, C, H, W) float32 on ``x``'s device, inside the threat model.

        Raises:
            InputError: a label has no DGN, or there are not as many labels as images.
        """
        if labels.shape != (len(x),):
            raise InputError(f"{len(x)} images need as many labels, found {tuple(labels.shape)}")
        if len(labels) and not (0 <= int(labels.min()) <= int(labels.max()) < len(self.generators)):
            raise InputError(f"labels must lie in 0..{len(self.generators) - 1}, one DGN a class")
        x_adv = torch.empty_like(x)
        for label, net in enumerate(self.generators):
            rows = torch.nonzero(labels == label).flatten()
            for part in torch.tensor_split(rows, max(math.ceil(len(rows) / batch_size), 1)):
                if not len(part):
                    continue
                batch = x[_padded(part, batch_size)]
                batch = batch.to(compute.device, memory_format=torch.channels_last)
                with compute.autocast():
                    g = propose(net, batch, self.output, threat)
                x_adv[part] = threat.project(g, batch)[: len(part)].to(x.device)
        return x_adv

    def save(self, path: Path) -> None:
        """Write all DGNs to one safetensors file, weights in half precision."""
        tensors = {
            f"{label}.{name}": _stored(name, tensor)
            for label, net in enumerate(self.generators)
            for name, tensor in net.state_dict().items()
        }
        about = {"dataset": self.dataset, "loss": self.loss, "output": self.output}
        save_tensors(path, tensors, {"kind": "dgn-bank", "classes": len(self.generators), **about})

    @classmethod
    def load(cls, path: Path, dataset: str, num_classes: int, device: torch.device) -> DGNBank:
        """Read a bank of ``num_classes`` DGNs for ``dataset``.

        Raises:
            InputError: no such file, or it holds something else.
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != "dgn-bank" or about.get("dataset") != dataset:
            found = f"{about.get('kind')} for {about.get('dataset')}"
            raise InputError(f"{path} holds a {found}, expected a dgn-bank for {dataset}")
        if about.get("classes") != num_classes:
            raise InputError(f"{path} holds {about.get('classes')} DGNs, expected {num_classes}")
        if about.get("output") not in ("image", "perturbation") or not about.get("loss"):
            raise InputError(f"{path} does not say how its output is to be read")
        generators = []
        for label in range(num_classes):
            net = nets.generator(dataset)
            prefix = f"{label}."
            own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            load_state(net, own, path)
            generators.append(_ready(net, device))
        return cls(dataset, str(about["loss"]), about["output"], generators)


def _padded(rows: Tensor, most: int) -> Tensor:
    """``rows`` (n,), the last repeated up to a multiple of 16, but ``most`` rows at most.

    For every new size of a batch the CPU's library (oneDNN) makes new kernels and keeps them. How many
    images a class has varies from call to call: without this, memory grew by half on the way to 100,000.
    """
    size = min(math.ceil(len(rows) / 16) * 16, most)
    return torch.cat([rows, rows[-1:].expand(size - len(rows))])


def _stored(name: str, tensor: Tensor) -> Tensor:
    """As it goes to disk: weights of convolutions halved; biases and batch norm left as they are."""
    return tensor.half() if tensor.dim() > 1 else tensor


def _ready(net: nn.Module, device: torch.device) -> nn.Module:
    """For use only: frozen, eval, and laid out for convolutions."""
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


def train_bank(
    dataset: str,
    target_net: nets.Classifier,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    analysis: Mapping[str, Mapping[str, Tensor]],
    params: TrainDgnParams,
    threat: ThreatModel,
    *,
    num_classes: int,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> tuple[DGNBank, History]:
    """Train one DGN per class on that class's images.

    Args:
        dataset: fixes the architecture.
        target_net: the network under attack, frozen, in eval mode.
        train: images (N, C, H, W) in [0, 1] and labels (N,), on ``compute.device``.
        val: likewise, for the curve of what the target network still gets right; may be empty.
        analysis: analysis → array → tensor with one row per class, for the loss's ``requires``.
        params: loss, its options, output and training budget.
        threat: what the images will be projected to.
        num_classes: how many DGNs.
        seed: of initial weights and orders; every class has its own.
        compute: device and precision.
        advance: called after every epoch of every class with how it stands.
        checkpoint: keeps the classes that are finished, and for the one under way what
            :func:`deepcustom.training.fit` keeps; training goes on from there, to the same bytes.

    Returns:
        The bank as its file will hold it, and the history: per class under ``class_<k>/``, and the
        mean over the classes without a prefix.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.losses.build_loss`.
        InputError: a class has no train image.
    """
    contexts = [
        LossContext(target_net, label, threat, _rows(analysis, label))
        for label in range(num_classes)
    ]
    counts = torch.bincount(train[1], minlength=num_classes)
    if (counts == 0).any():
        raise InputError(f"class {int(counts.argmin())} has no train image to train a DGN on")
    for context in contexts:  # every mistake shows before the first DGN is trained
        build_loss(params.loss, params.options, context)
    finished = _finished(checkpoint, dataset, num_classes, compute)
    _tell_resumed(checkpoint, len(finished), params.training.epochs, advance)
    for context in contexts[len(finished) :]:
        own = f"class_{context.label}"
        net, history = train_dgn(
            dataset,
            context,
            train[0][train[1] == context.label],
            val[0][val[1] == context.label],
            params,
            seed=derive_seed(seed, str(context.label)),
            compute=compute,
            advance=advance,
            checkpoint=checkpoint.part(own),
        )
        checkpoint.save(own, net.state_dict(), {"history": list(history.items())})
        checkpoint.part(own).clear()
        finished.append((net, history))
    generators = [net for net, _ in finished]
    merged = _merge([history for _, history in finished])
    return DGNBank(dataset, params.loss, params.output, generators), merged


def _finished(
    checkpoint: Checkpoint, dataset: str, num_classes: int, compute: Compute
) -> list[tuple[nn.Module, History]]:
    """What :func:`train_dgn` gave for the first classes, as far as ``checkpoint`` holds them."""
    found: list[tuple[nn.Module, History]] = []
    for label in range(num_classes):
        kept = checkpoint.load(f"class_{label}")
        if kept is None:
            break
        net = nets.generator(dataset)
        net.load_state_dict(kept[0])
        found.append((_ready(net, compute.device), dict(kept[1]["history"])))
    return found


def _tell_resumed(checkpoint: Checkpoint, classes: int, epochs: int, advance: Advance) -> None:
    """Say to ``advance`` where training goes on, if it does: ``classes`` of ``epochs`` are finished."""
    more = epochs_kept(checkpoint.part(f"class_{classes}"))
    if classes or more:
        last = f"class {classes}, epoch {more}" if more else f"class {classes - 1}"
        advance(f"resumed after {last}", steps=classes * epochs + more, resumed=True)


def train_dgn(
    dataset: str,
    context: LossContext,
    x: Tensor,
    x_val: Tensor,
    params: TrainDgnParams,
    *,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> tuple[nn.Module, History]:
    """Train the DGN of one class; arguments as in :func:`train_bank`, ``checkpoint`` as in ``fit``.

    Returns:
        The generator with its weights as they will be stored, and its history: ``loss``, the loss's
        terms and, where ``x_val`` is not empty, ``val_target_accuracy``: the share of projected
        validation images that the target network still gets right (at last by the stored weights).
    """
    seed_everything(seed)
    net = compute.place(nets.generator(dataset))
    attacked = nets.MixedPrecision(context.target_net, compute)
    loss = build_loss(params.loss, params.options, replace(context, target_net=attacked))
    y_val = torch.full((len(x_val),), context.label, device=x_val.device)

    def terms(batch: Tensor) -> Mapping[str, Tensor]:
        g = propose(net, batch, params.output, context.threat)
        with torch.autocast(compute.device.type, enabled=False):
            return _checked(loss(batch, g), len(batch), params.loss)

    def kept() -> float:
        bank = DGNBank(dataset, params.loss, params.output, [net])
        x_adv = bank.generate(x_val, torch.zeros_like(y_val), context.threat, compute=compute)
        return accuracy(context.target_net, x_adv, y_val)

    def watch(epoch: int, means: Mapping[str, float]) -> Mapping[str, float]:
        seen = {"val_target_accuracy": kept()} if len(x_val) else {}
        advance(_note(context.label, {**means, **seen}))
        return seen

    history = fit(
        net,
        terms,
        [x],
        params.training,
        seed=seed,
        compute=compute,
        after_epoch=watch,
        checkpoint=checkpoint,
    )
    net.load_state_dict({k: _stored(k, t).to(t.dtype) for k, t in net.state_dict().items()})
    if len(x_val):
        history["val_target_accuracy"][-1] = kept()
    return _ready(net, compute.device), history


def _checked(terms: Any, n: int, loss: str) -> Mapping[str, Tensor]:
    """A user's loss may return anything; say what it should be."""
    if not isinstance(terms, Mapping) or not terms:
        raise LossError(f"loss {loss!r} must return a mapping of named terms")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.shape != (n,):
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise LossError(f"loss {loss!r}: term {name!r} is {shape}, expected a ({n},) tensor")
    return terms


def _rows(analysis: Mapping[str, Mapping[str, Tensor]], label: int) -> dict[str, dict[str, Tensor]]:
    """One class's row of every array."""
    return {
        name: {key: array[label] for key, array in arrays.items()}
        for name, arrays in analysis.items()
    }


def _note(label: int, means: Mapping[str, float]) -> str:
    return f"class {label}  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items())


def _merge(histories: list[History]) -> History:
    """The classes' curves, and their mean."""
    merged: History = {}
    for name in dict.fromkeys(name for history in histories for name in history):
        curves = [history[name] for history in histories if name in history]
        merged[name] = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    for label, history in enumerate(histories):
        merged |= {f"class_{label}/{name}": curve for name, curve in history.items()}
    return merged
