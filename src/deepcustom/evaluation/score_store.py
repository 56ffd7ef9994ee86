"""Scores stored by what they depend on, so that a new network or set repeats no attack made before.

The unit is a *piece*: one attack on one network, its curves, or a check that queries it. Each piece lies in
a file named by the hash of everything that decides it, in a folder that says what it is: ``NETWORK/ATTACK``.
If there is a file of that name, the piece is taken from it. If anything differs (weights, images, a setting
of this attack, code, machine), the name differs, and the piece is made.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from deepcustom.base.files import remove, replace_file
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.found import Finding
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.victim import Attack, Cost, Victim
from deepcustom.training.checkpoint import SUFFIX, Checkpoint

T = TypeVar("T")
_NO_NAME = re.compile(r"[^\w-]+")  # what no folder's name holds
Packed = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass
class ScoreStore:
    """A folder of pieces, and a context manager for one run that asks for them.

    The store keeps the pieces that the last run of each name used. When a run ends well, the store
    removes all others. While a run goes on, or if it is interrupted, the pieces it has used so far are
    kept too. Deleting the folder costs only the time to make the pieces again.

    Attributes:
        folder: where the pieces lie, created with the first one; None: nothing is kept.
        basis: what decides every piece: code, versions, machine; anything that JSON can hold.
        run: the name of this run; a JSON file of that name lists its pieces.
    """

    folder: Path | None = None
    basis: Mapping[str, Any] = field(default_factory=dict)
    run: str = "run"
    _used: set[str] = field(default_factory=set, init=False)
    _listed: set[str] = field(default_factory=set, init=False)

    def __enter__(self) -> ScoreStore:
        self._used = set()
        self._listed = set() if self.folder is None else _read(self.folder / f"{self.run}.json")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or self.folder is None or not self._used:
            return
        self._list(self._used)
        wanted = set().union(*(_read(file) for file in self.folder.glob("*.json")))
        for file in self.folder.rglob(f"*{SUFFIX}"):
            if file.relative_to(self.folder).as_posix().removesuffix(SUFFIX) not in wanted:
                file.unlink(missing_ok=True)
        _prune(self.folder)

    def key(self, network: str, what: str, piece: Mapping[str, Any]) -> str:
        """The name of the piece that ``piece`` describes.

        Args:
            network: the network that it is about, for the folder.
            what: the attack, the check, ``curves`` or ``images``, for the folder.
            piece: everything that decides it besides the basis; it may hold tensors, and what JSON can hold.
        """
        text = json.dumps([self.basis, piece], sort_keys=True, default=_digest)
        folder = "/".join(_NO_NAME.sub("_", part) for part in (network, what))
        return f"{folder}/{hashlib.sha256(text.encode()).hexdigest()}"

    def load(self, key: str) -> Packed | None:
        """The piece of that name; None if it is absent or damaged."""
        self.note(key)
        return Checkpoint(self.folder, key).load(key)

    def save(self, key: str, packed: Packed) -> None:
        """Keep a piece under its name."""
        self.note(key)
        Checkpoint(self.folder, key).save(key, *packed)

    def of(self, network: str) -> dict[str, Packed]:
        """The pieces of a network that are kept, but the images made against it; none of them is noted."""
        if self.folder is None:
            return {}
        found = {}
        for path in (self.folder / _NO_NAME.sub("_", network)).rglob(f"*{SUFFIX}"):
            key = path.relative_to(self.folder).as_posix().removesuffix(SUFFIX)
            packed = (
                None if path.parent.name == "images" else Checkpoint(self.folder, key).load(key)
            )
            if packed is not None:
                found[key] = packed
        return found

    def note(self, key: str) -> None:
        """Keep the piece of that name, if there is one, as if this run had asked for it."""
        self._used.add(key)
        if self.folder is not None and key not in self._listed:
            self._list(self._listed | {key})

    def _list(self, keys: set[str]) -> None:
        if self.folder is not None:
            self._listed = keys
            replace_file(self.folder / f"{self.run}.json", _listed(keys))


def pieces_of(folder: Path, network: str) -> list[Path]:
    """Where the pieces of a network lie, and what its images did to others."""
    name = _NO_NAME.sub("_", network)
    return [found for form in (name, f"*/from-{name}") for found in sorted(folder.glob(form))]


def forget(folder: Path, network: str) -> None:
    """Remove the pieces of a network that is no more, and take them off every run's list."""
    for found in pieces_of(folder, network):
        remove(found)
    _prune(folder)
    name = _NO_NAME.sub("_", network)
    for file in folder.glob("*.json"):
        gone = (f"{name}/", f"/from-{name}/")
        rest = [k for k in _read(file) if not (k.startswith(gone[0]) or gone[1] in k)]
        replace_file(file, _listed(rest))


@dataclass
class Pieces:
    """The pieces of one network: taken from the store if they are there, else made and stored.

    Attributes:
        victim: the network and the images.
        weights: hash of the network's weights, and of everything else that decides its output.
        store: where the pieces lie.
        before_first: called before the first piece is made.
        made: how many pieces were made.
        taken: how many were taken from the store.
        skipped: steps of progress that needed no work, for :meth:`resumed`.
    """

    victim: Victim
    weights: str
    store: ScoreStore = field(default_factory=ScoreStore)
    before_first: Callable[[], None] | None = None
    made: int = 0
    taken: int = 0
    skipped: int = 0
    _said: int = field(default=0, init=False)  # the value of ``made`` at the last report

    def say(self, note: str, steps: int = 1) -> None:
        """Report progress on what was made since the last call, if anything was."""
        if self.made > self._said:
            self.victim.advance(f"{self.victim.name}: {note}", steps)
        else:
            self.skipped += steps
        self._said = self.made

    def resumed(self) -> None:
        """Report in one line what was taken from the store, if anything was."""
        if self.taken:
            whole = "was finished before"
            part = f"{self.taken} of {self.taken + self.made} parts were already done"
            note = f"{self.victim.name}: {part}" if self.made else f"{self.victim.name} {whole}"
            self.victim.advance(note, self.skipped, resumed=True)

    def finding(self, attack: Attack) -> Finding:
        """The finding of an attack."""
        about = {"protocol": attack.protocol, "attack": attack.name, "settings": attack.settings}
        return self._piece(
            attack.name, about, lambda: Finding.of(self.victim, attack.run()), _FINDING
        )

    def check(self, name: str, make: Callable[[], Check]) -> Check:
        """A check that depends on the victim alone."""
        return self._piece(name, {"check": name}, make, _CHECK)

    def points(self, settings: Mapping[str, Any], make: Callable[[], list[Point]]) -> list[Point]:
        """The curves."""
        return self._piece("curves", {"curves": settings}, make, _POINTS)

    def images(self, settings: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
        """Images made against this network, (n, C, H, W), on the victim's device."""
        return self._piece("images", {"images": settings}, make, _IMAGES).to(self.victim.x)

    def images_key(self, settings: Mapping[str, Any]) -> str:
        """The key of :meth:`images`; it keeps them in the store even if this run never reads them."""
        key = self._key("images", {"images": settings})
        self.store.note(key)
        return key

    def _key(self, what: str, piece: Mapping[str, Any]) -> str:
        return self.store.key(self.victim.name, what, {"network": self._network, **piece})

    @cached_property
    def _network(self) -> dict[str, Any]:
        victim = self.victim
        return {
            "name": victim.name,
            "weights": self.weights,
            "x": _digest(victim.x),
            "y": _digest(victim.y),
            "threat": repr(victim.threat),
            "classes": victim.num_classes,
            "seed": victim.seed,
        }

    def _piece(
        self, what: str, piece: Mapping[str, Any], make: Callable[[], T], form: _Form[T]
    ) -> T:
        key = self._key(what, piece)
        packed = self.store.load(key)
        if packed is not None:
            self.taken += 1
            return form.unpack(packed)
        if not self.made and self.before_first is not None:
            self.before_first()
        found = make()
        self.store.save(key, form.pack(found))
        self.made += 1
        return found


@dataclass(frozen=True)
class _Form(Generic[T]):
    """How a kind of piece is turned into tensors and JSON, and back."""

    pack: Callable[[T], Packed]
    unpack: Callable[[Packed], T]


def _pack_finding(found: Finding) -> Packed:
    tensors = {name: getattr(found, name).to(torch.uint8) for name in ("tried", "stands")}
    about = {"protocol": found.protocol, "attack": found.attack, "unlike": found.unlike}
    return tensors, {**about, "cost": asdict(found.cost), "ball": _plain(found.ball)}


def _unpack_finding(packed: Packed) -> Finding:
    tensors, about = packed
    return Finding(
        about["protocol"],
        about["attack"],
        tensors["tried"].bool(),
        tensors["stands"].bool(),
        Cost(**about["cost"]),
        Check(**_restored(about["ball"])),
        about["unlike"],
    )


def _pack_points(points: list[Point]) -> Packed:
    return {}, {"points": [_plain(point) for point in points]}


def _unpack_points(packed: Packed) -> list[Point]:
    return [Point(**_restored(point)) for point in packed[1]["points"]]


_FINDING = _Form(_pack_finding, _unpack_finding)
_CHECK = _Form[Check](lambda check: ({}, _plain(check)), lambda p: Check(**_restored(p[1])))
_POINTS = _Form(_pack_points, _unpack_points)
_IMAGES = _Form[Tensor](lambda x: ({"x_adv": x.cpu().contiguous()}, {}), lambda p: p[0]["x_adv"])


def _digest(value: Any) -> str:
    """What stands for a tensor in a key: the hash of its dtype, shape and bytes."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the key of a piece holds a {type(value).__name__}: want a tensor, or JSON"
        )
    head = f"{value.dtype} {tuple(value.shape)}".encode()
    digest = hashlib.sha256(head)
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(record: Check | Point) -> dict[str, Any]:
    """The record as JSON; nan becomes null, since JSON has no nan."""
    return {name: _null(value) for name, value in asdict(record).items()}


def _null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _restored(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _restored(value) if isinstance(value, dict) else math.nan if value is None else value
        for name, value in plain.items()
    }


def _listed(keys: Iterable[str]) -> bytes:
    return (json.dumps(sorted(keys), indent=0) + "\n").encode()


def _prune(folder: Path) -> None:
    """Remove folders that hold nothing more, the deepest first."""
    for below in sorted(folder.rglob("*"), reverse=True):
        if below.is_dir():
            with suppress(OSError):  # something is in it
                below.rmdir()


def _read(path: Path) -> set[str]:
    """The pieces on a run's list; none if there is no readable list."""
    try:
        return {str(key) for key in json.loads(path.read_text())}
    except (OSError, ValueError, TypeError):
        return set()
