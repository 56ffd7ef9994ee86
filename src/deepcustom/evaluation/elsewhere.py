"""Networks scored as tasks of an engine: what they make goes into the store, where the scoring finds it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.arrays import Array
from deepcustom.data.mapped import MappedImages, held
from deepcustom.evaluation.blackbox import surrogate_images
from deepcustom.evaluation.full import evaluate_all
from deepcustom.evaluation.material import Adaptable, DGNs, Lazy, Material
from deepcustom.evaluation.score_store import Packed, Pieces, ScoreStore
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.victim import Victim
from deepcustom.training.compute import Compute
from deepcustom.training.engine import Engine, Task

CPU = torch.device("cpu")


@dataclass
class Carried(ScoreStore):
    """A store in memory, which travels with a task.

    Attributes:
        pieces: key → a piece.
        made: those that were saved here.
    """

    pieces: dict[str, Packed] = field(default_factory=dict)
    made: dict[str, Packed] = field(default_factory=dict)

    def load(self, key: str) -> Packed | None:
        """See :meth:`ScoreStore.load`."""
        return self.pieces.get(key)

    def save(self, key: str, packed: Packed) -> None:
        """See :meth:`ScoreStore.save`."""
        self.pieces[key] = self.made[key] = packed


class Asked(NamedTuple):
    """What is asked about every network: the images to attack it on, and how.

    Attributes:
        x: images (n, C, H, W) in [0, 1], on the CPU.
        y: labels (n,).
        threat: ball and range.
        num_classes: number of logits.
        params: all settings.
        dgns: the DGNs to adapt; None: there are none.
        train: images to adapt them on, and labels; None likewise.
        dgns_key: decides both of these.
        basis: of the store.
    """

    x: Tensor
    y: Tensor
    threat: ThreatModel
    num_classes: int
    params: EvaluateParams
    dgns: DGNs | None
    train: tuple[Array, Tensor] | None
    dgns_key: Any
    basis: Mapping[str, Any]

    def victim(self, network: Network, seed: int, compute: Compute, advance: Advance) -> Victim:
        """A network, and the images it is attacked on, where a task runs."""
        x, y = self.x.to(compute.device), self.y.to(compute.device)
        net = network.net.to(compute.device)
        given = (network.name, net, x, y, self.threat, self.num_classes, seed, compute, advance)
        return Victim(*given)

    def adaptable(self, compute: Compute) -> Lazy[Adaptable] | None:
        """The DGNs and their images, where a task runs."""
        dgns, train = self.dgns, self.train
        if dgns is None or train is None:
            return None
        x, y = train
        return Lazy(
            self.dgns_key,
            lambda: (
                _moved(dgns, compute.device),
                (MappedImages.on(x, compute.device), y.to(compute.device)),
            ),
        )


class Subject(NamedTuple):
    """A network to score, with what is its own.

    Attributes:
        victim: the network and the images, here.
        network: the same network, as the table names it.
        stands: adversarial set → (n,) bool, which of its images it gets right.
        pieces: its pieces in the store, here.
    """

    victim: Victim
    network: Network
    stands: Mapping[str, Tensor]
    pieces: Pieces


def score_elsewhere(
    engine: Engine,
    subjects: Sequence[Subject],
    params: EvaluateParams,
    dgns: Lazy[Adaptable] | None,
    surrogates: Mapping[str, Lazy[Tensor]],
    store: ScoreStore,
    advance: Advance,
) -> None:
    """Make every piece that is missing of all networks, and put it into the store.

    Args:
        engine: does the tasks: first the images against each network, then the networks.
        subjects: the networks.
        params: all settings.
        dgns: the DGNs to adapt to each network; None: there are none.
        surrogates: network → images made against it, which all others are shown.
        store: where the pieces go.
        advance: told how the tasks stand.
    """
    asked = _asked(subjects[0].victim, params, dgns, store)
    settings = params.surrogate.model_dump()
    without = [one for one in subjects if store.load(one.pieces.images_key(settings)) is None]
    images = [
        Task(f"images against {one.network.name}", surrogate_as_task, partial(_sent, one))
        for one in without
    ]
    for place, found in engine.do(asked, images, advance):
        without[place].pieces.images(settings, partial(torch.tensor, found))

    def given(one: Subject) -> tuple[Any, ...]:
        return *_sent(one), dict(one.stands), store.of(one.network.name)

    tasks = [Task(one.network.name, evaluate_as_task, partial(given, one)) for one in subjects]
    made_against = {name: (lazy.key, lazy.value.cpu()) for name, lazy in surrogates.items()}
    for _, made in engine.do((asked, made_against), tasks, advance):
        for key, packed in made.items():
            store.save(key, packed)


def _asked(
    victim: Victim, params: EvaluateParams, dgns: Lazy[Adaptable] | None, store: ScoreStore
) -> Asked:
    bank: DGNs | None = None
    train = None
    if dgns is not None:
        bank, (x, y) = dgns.value
        bank, train = _moved(copy.deepcopy(bank), CPU), (held(x), y.cpu())
    return Asked(
        victim.x.cpu(),
        victim.y.cpu(),
        victim.threat,
        victim.num_classes,
        params,
        bank,
        train,
        None if dgns is None else dgns.key,
        store.basis,
    )


def _moved(dgns: DGNs, device: torch.device) -> DGNs:
    """The same DGNs, moved in place; their memory layout stays, since it decides the last bits."""
    for net in dgns.networks():
        net.to(device)
    return dgns


def _sent(one: Subject) -> tuple[Network, int]:
    """The network as it travels, and its seed."""
    network = replace(one.network, net=copy.deepcopy(one.network.net).cpu())
    return network, one.victim.seed


def surrogate_as_task(
    asked: Asked, network: Network, seed: int, *, compute: Compute, advance: Advance
) -> Array:
    """Images (n, C, H, W) made against a network, as a task of an engine."""
    victim = asked.victim(network, seed, compute, advance)
    found: Array = surrogate_images(victim, asked.params.surrogate).cpu().numpy()
    return found


def evaluate_as_task(
    shared: tuple[Asked, Mapping[str, tuple[Any, Tensor]]],
    network: Network,
    seed: int,
    stands: Mapping[str, Tensor],
    known: dict[str, Packed],
    *,
    compute: Compute,
    advance: Advance,
) -> dict[str, Packed]:
    """The pieces of a network that were not ``known``, as a task of an engine."""
    asked, made_against = shared
    victim = asked.victim(network, seed, compute, advance)
    store = Carried(basis=asked.basis, pieces=known)
    others = {
        name: Lazy(key, partial(images.to, compute.device))
        for name, (key, images) in made_against.items()
        if name != network.name
    }
    material = Material(asked.adaptable(compute), stands, others)
    pieces = Pieces(victim, network.md5 + network.source, store)
    evaluate_all(victim, asked.params, material, pieces, compute=compute)
    pieces.resumed()
    return store.made
