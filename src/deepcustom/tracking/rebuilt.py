"""Networks put together again from a training's record and the file that it left.

The record names the architecture, its options and the data set; the file has the weights. What comes out
answers as the network that was scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose
from deepcustom.attacks.conditional import KIND, ConditionalDGN, perturbed
from deepcustom.attacks.dgn import stored
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.hashes import file_md5
from deepcustom.base.params import read_params, section, validate
from deepcustom.base.rows import SUBJECTS
from deepcustom.base.settings import ArchitectureParams, SubjectParams
from deepcustom.data.datasets import DatasetSpec
from deepcustom.tracking.data_sets import described
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.base import Architecture, Classifier, build
from deepcustom.training.nets.exported import SUFFIX, Exported, load_exported
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.healed import Healed, Remedy
from deepcustom.training.nets.outputs import place_of_logits, tensor_at
from deepcustom.training.weights import load_network, read_metadata

if TYPE_CHECKING:
    from deepcustom.tracking.record import RunRecord

REMEDY = "remedy"
"""The key of a file's metadata that says what its network needs around it."""


@dataclass(frozen=True)
class Rebuilt:
    """A network for others to use, frozen, in eval mode, on the CPU, in float32.

    Attributes:
        answer: what the network gives, as it is scored or as it attacks.
        ways: modules that answer alike; the first that torch can export is the one to export.
        shape: (C, H, W) of an image.
        classes: how many there are.
        told: whether it takes labels (N,) besides the images (N, C, H, W) and gives images; otherwise it
            takes images alone and gives logits (N, classes).
    """

    answer: Callable[..., Tensor]
    ways: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    classes: int
    told: bool


def rebuilt(record: RunRecord, path: str, root: Path) -> Rebuilt:
    """The network that a training left in a file.

    Args:
        record: of the training.
        path: one of its outputs, relative to the project.
        root: the project's folder; the user's own classes are looked for in the current one.

    Raises:
        InputError, ParamsError: the data set's description or the user's own class is not here, or the file
            does not fit them.
    """
    subject = _subject(record, root)
    spec = described(subject.dataset, root)
    if path.startswith("models/dgn/"):
        dgn = _dgn(subject, record.dataset, spec, root / path)
        return of_dgn(dgn, ThreatModel.of(subject.threat), spec.shape)
    net = _classifier(subject, spec, record, root, root / path)
    return of_classifier(net, spec.shape, spec.num_classes)


def of_classifier(net: Classifier, shape: tuple[int, ...], classes: int) -> Rebuilt:
    """A classifier, for images of this shape."""
    whole = FLOAT32.place(net.eval().requires_grad_(False))
    way = Plain(whole, shape, classes) if isinstance(net, Foreign | Healed) else whole
    return Rebuilt(whole, (way,), shape, classes, told=False)


def of_dgn(dgn: DGNBank | ConditionalDGN, threat: ThreatModel, shape: tuple[int, ...]) -> Rebuilt:
    """Generators, with the projection on the ball."""

    def answer(x: Tensor, y: Tensor) -> Tensor:
        return dgn.generate(x, y, threat, compute=FLOAT32)

    if isinstance(dgn, ConditionalDGN):
        ways: tuple[nn.Module, ...] = (Told(dgn, threat),)
    else:
        ways = Routed(dgn, threat), Chosen(dgn, threat)
    return Rebuilt(answer, ways, shape, dgn.classes, told=True)


def _subject(record: RunRecord, root: Path) -> SubjectParams:
    """What was attacked; a record of an early version leaves out all but the radius."""
    name = record.dataset
    place = f"{SUBJECTS}.{name}"
    found = record.params.get(place)
    if found is None:
        found = dict(section(read_params(root / "params.yaml"), SUBJECTS, name))
        found["threat"] = {**found.get("threat", {}), **record.params.get(f"threat.{name}", {})}
    return validate(SubjectParams, found, place)


def _made_from(params: ArchitectureParams, spec: DatasetSpec) -> Architecture:
    facts = {"shape": spec.shape, "classes": spec.num_classes, "num_classes": spec.num_classes}
    return Architecture(params.name, params.options, facts)


def _classifier(
    subject: SubjectParams, spec: DatasetSpec, record: RunRecord, root: Path, file: Path
) -> Classifier:
    """As the stages load it; see :func:`deepcustom.pipeline.load.load_classifier`."""
    params = subject.network
    if params.name.endswith(SUFFIX):
        program = root / params.name
        if not program.is_file() or file_md5(program) != record.inputs.get(params.name):
            raise InputError(f"{params.name} is not here as the run read it")
        net: nn.Module = load_exported(program)
    else:
        net = build(_made_from(params, spec))
    if not isinstance(net, Classifier) or params.mean or params.layers:
        more: dict[str, Any] = {"mean": params.mean, "std": params.std, "layers": params.layers}
        net = Foreign(net, classes=spec.num_classes, **more)
    about = load_network(file, net)
    if REMEDY in about:
        net = Healed(net, Remedy.from_json(about[REMEDY]))
    return net


def _dgn(
    subject: SubjectParams, name: str, spec: DatasetSpec, file: Path
) -> DGNBank | ConditionalDGN:
    """A generator for each class, or one that is told the label."""
    classes, device = spec.num_classes, FLOAT32.device
    if read_metadata(file).get("kind") == KIND:
        told = _made_from(subject.conditional, spec)
        return ConditionalDGN.load(file, told, name, classes, device)
    return DGNBank.load(file, _made_from(subject.generator, spec), name, classes, device)


class Plain(nn.Module):
    """A user's own network, and what was put around it, without what torch cannot export.

    Raises:
        InputError: it needs batches of a certain size.
    """

    def __init__(self, whole: Classifier, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self._remedy = whole.remedy if isinstance(whole, Healed) else Remedy(classes)
        if self._remedy.most is not None:
            raise InputError(f"it takes at most {self._remedy.most} images at a time")
        inner = whole.net if isinstance(whole, Healed) else whole
        self._front: list[nn.Module] = [
            inner
        ]  # in a list, so not a submodule: it holds the network too
        self._net = inner.net if isinstance(inner, Foreign) else inner
        if isinstance(self._net, Exported):
            self._net = self._net._program[0]
        with torch.no_grad():
            out = self._net(self._given(torch.full((2, *shape), 0.5)))
        found = isinstance(inner, Foreign) and not isinstance(out, Tensor)
        self._place = place_of_logits(out, 2, classes) if found else self._remedy.take

    def _given(self, x: Tensor) -> Tensor:
        front = self._front[0]
        if isinstance(front, Foreign):
            return front.normalized(x)
        return x.to(getattr(torch, self._remedy.dtype)) if self._remedy.dtype else x.clone()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes), float32, of images (N, C, H, W) in [0, 1]."""
        found = tensor_at(self._net(self._given(x)), self._place)
        return found.reshape(-1, self._remedy.classes).float()


class Halved(nn.Module):
    """A frozen network whose weights lie in half precision where its file has them so."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._net = [net]  # in a list, so not a submodule: its own weights are not kept
        self._places = {}
        for place, (name, tensor) in enumerate(net.state_dict().items()):
            small = stored(tensor)
            exact = torch.equal(small.to(tensor.dtype), tensor)
            self.register_buffer(f"w{place}", (small if exact else tensor).detach().clone())
            self._places[name] = f"w{place}", tensor.dtype

    def forward(self, *given: Tensor) -> Any:
        """What the network gives."""
        state = {
            name: getattr(self, place).to(dtype) for name, (place, dtype) in self._places.items()
        }
        return torch.func.functional_call(self._net[0], state, given)


class Told(nn.Module):
    """A generator that is told the label, with its projection."""

    def __init__(self, dgn: ConditionalDGN, threat: ThreatModel) -> None:
        super().__init__()
        self._generator, self._threat = Halved(dgn.generator), threat

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, C, H, W), made for the labels ``y`` (N,)."""
        return self._threat.project(perturbed(self._generator, x, y, self._threat), x)


class _Bank(nn.Module):
    def __init__(self, bank: DGNBank, threat: ThreatModel) -> None:
        super().__init__()
        self._nets = nn.ModuleList(Halved(net) for net in bank.generators)
        self._output, self._threat = bank.output, threat

    def _made(self, net: nn.Module, x: Tensor) -> Tensor:
        return self._threat.project(propose(net, x, self._output, self._threat), x)


class Routed(_Bank):
    """A bank in which each image goes through the generator of its label alone."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """As :meth:`Told.forward`."""
        made = x
        for label, net in enumerate(self._nets):
            rows = torch.nonzero(y == label).flatten()
            count = rows.shape[0]
            torch._check(count >= 0)  # type: ignore[no-untyped-call]
            torch._check(count <= x.shape[0])  # type: ignore[no-untyped-call]
            # The first image goes along, so that none is shown no image: torch cannot export that.
            some = x.index_select(0, torch.cat([rows, rows.new_zeros(1)]))
            made = made.index_copy(0, rows, self._made(net, some).narrow(0, 0, count))
        return made


class Chosen(_Bank):
    """A bank in which each image goes through every generator, for generators that cannot be routed."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """As :meth:`Told.forward`."""
        made = x
        for label, net in enumerate(self._nets):
            made = torch.where((y == label)[:, None, None, None], self._made(net, x), made)
        return made
