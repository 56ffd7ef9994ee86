"""Comparing results with earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deepcustom.evaluation.results import Result, percent

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Comparison:
    """How the results of one subject differ from earlier ones.

    Attributes:
        dataset: its name.
        equal: number of rows that are the same in every column.
        moved: (earlier, now) where the accuracy or the number of images differs.
        remade: (earlier, now) of equal accuracy, but with other weights or on other images.
        missing: rows that only the earlier results have.
        new: rows that only the later ones have.
    """

    dataset: str
    equal: int
    moved: list[tuple[Result, Result]]
    remade: list[tuple[Result, Result]]
    missing: list[Result]
    new: list[Result]

    @property
    def alike(self) -> bool:
        """Whether both have the same rows, of as many images, each accuracy in its earlier 95 % interval."""
        return not (self.missing or self.new or any(_outside(*pair) for pair in self.moved))


def compare(earlier: Iterable[Result], now: Iterable[Result], dataset: str) -> Comparison:
    """Compare the results ``now`` of one subject with ``earlier`` ones."""
    before, after = _by_key(earlier, dataset), _by_key(now, dataset)
    pairs = [(result, after[key]) for key, result in before.items() if key in after]
    # Compared as text, since nan (the accuracy on an empty set) is not equal to itself.
    changed = [(old, new) for old, new in pairs if repr(old) != repr(new)]
    moved = [(old, new) for old, new in changed if _score(old) != _score(new)]
    return Comparison(
        dataset,
        equal=len(pairs) - len(changed),
        moved=moved,
        remade=[pair for pair in changed if pair not in moved],
        missing=[result for key, result in before.items() if key not in after],
        new=[result for key, result in after.items() if key not in before],
    )


def comparison_lines(found: Comparison, earlier: str = "committed") -> list[str]:
    """``found`` in words, the most serious last."""
    total = found.equal + len(found.moved) + len(found.remade)
    if found.equal == total and not found.missing and not found.new:
        return [f"{found.dataset}: all {total} rows equal the {earlier} ones, hashes included"]
    lines = [f"{found.dataset}: {found.equal} of {total} rows equal the {earlier} ones"]
    if found.remade:
        lines.append(
            f"  {len(found.remade)} have the same accuracy, but other weights or images (see the hashes)"
        )
    for old, new in sorted(found.moved, key=lambda pair: _outside(*pair)):
        lines.append(f"  {_name(old)}: {_change(old, new)}")
    lines += [f"  {_name(result)}: missing now" for result in found.missing]
    lines += [f"  {_name(result)}: not among the {earlier} ones" for result in found.new]
    return lines


def _by_key(results: Iterable[Result], dataset: str) -> dict[Key, Result]:
    own = [result for result in results if result.dataset == dataset]
    return {(r.network, r.protocol, r.attack): r for r in own}


def _score(result: Result) -> str:
    return repr((result.n, result.accuracy))


def _outside(old: Result, new: Result) -> bool:
    return old.n != new.n or not old.ci_low <= new.accuracy <= old.ci_high


def _change(old: Result, new: Result) -> str:
    if old.n != new.n:
        return f"{percent(old)} of {old.n} images -> {percent(new)} of {new.n}"
    where = "outside" if _outside(old, new) else "inside"
    interval = f"[{100 * old.ci_low:.2f}, {100 * old.ci_high:.2f}]"
    return f"{percent(old)} -> {percent(new)} %, {where} {interval}"


def _name(result: Result) -> str:
    return f"{result.network}, {result.protocol}, {result.attack}"
