"""What was found, in a few sentences that are computed from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import ALL, CLEAN, Result, percent, pivot
from deepcustom.report.headline import TARGET
from deepcustom.report.web.subject import Subject

Cells = Mapping[tuple[str, str], Result]

APART = (
    "Transfer shows each network images that were made against the undefended one, so it measures how "
    "well the images travel. White-box attacks are made anew against each network itself, by an attacker "
    "who knows its weights. A network may have learned the look of the former and still have no answer to "
    "the latter, so the two numbers differ, and only the lower one says something about robustness."
)
"""Why transfer and white-box accuracies differ, in general."""
GAP = 0.01
"""From this difference on, a sentence gives the two numbers as an example."""


def findings(subject: Subject) -> list[str]:
    """The sentences on one subject, each of them plain text.

    The first says what the undefended network loses, the second which hardened network keeps most, the third
    how far transfer misleads, the last what the checks say. What was not measured is said to be so.
    """
    _, _, cells = pivot(subject.results, subject.name, "worst")
    known = {key: cell for key, cell in cells.items() if not cell.empty}
    if not known:
        return [f"{subject.title} was not evaluated yet, so nothing is known about it."]
    networks = list(dict.fromkeys(network for network, _ in known))
    found = [_undefended(subject.title, known), _hardened(known, networks), _gap(known, networks)]
    return [one for one in [*found, _checks(subject.checks)] if one]


def gap(subject: Subject) -> str:
    """An example of a network for which transfer misleads; empty if there is none."""
    _, _, cells = pivot(subject.results, subject.name, "worst")
    known = {key: cell for key, cell in cells.items() if not cell.empty}
    return _gap(known, list(dict.fromkeys(network for network, _ in known)))


def _undefended(title: str, cells: Cells) -> str:
    clean, every = cells.get((TARGET, CLEAN)), cells.get((TARGET, ALL))
    if clean is None:
        return f"{title}: the undefended network was not scored."
    if clean.accuracy == 0:
        return f"{title}: the undefended network gets no clean image right, so there is nothing to attack."
    begin = f"{title}: the undefended network gets {percent(clean)} % of the clean images right"
    if every is None:
        return f"{begin}; what attacks leave of that was not measured."
    return f"{begin}; {_left(every)} under everything that was tried."


def _left(cell: Result) -> str:
    """How much is left: ``none is left``, ``1 of 1,000 is left``, or a share."""
    right = round(cell.accuracy * cell.n)
    if right == 0:
        return "none of them is left"
    if right == 1:
        return f"1 of {cell.n:,} images is left"
    return f"{percent(cell)} % are left"


def _hardened(cells: Cells, networks: Sequence[str]) -> str:
    scored = [name for name in networks if name != TARGET and (name, ALL) in cells]
    if not scored:
        return "No hardened network was scored, so what hardening is worth is not known."
    most = max(cells[name, ALL].accuracy for name in scored)
    best = [name for name in scored if cells[name, ALL].accuracy == most]
    if most == 0:
        whole = (
            "The hardened network keeps"
            if len(scored) == 1
            else f"All {len(scored)} hardened networks keep"
        )
        return f"{whole} nothing under everything that was tried."
    every, clean = cells[best[0], ALL], cells.get((best[0], CLEAN))
    low, high = 100 * every.ci_low, 100 * every.ci_high
    figures = f"{percent(every)} % (95 % interval {low:.1f} to {high:.1f})"
    cost = f", and {percent(clean)} % of clean images" if clean else ""
    if len(scored) == 1:
        return f"The one hardened network, {best[0]}, keeps {figures} under everything that was tried{cost}."
    if len(best) > 1:
        return (
            f"Of {len(scored)} hardened networks, {', '.join(best)} keep most under everything that was "
            f"tried: {figures} each."
        )
    zero = sum(cells[name, ALL].accuracy == 0 for name in scored)
    rest = f" {zero} of the others {'keeps' if zero == 1 else 'keep'} nothing." if zero else ""
    return (
        f"Of {len(scored)} hardened networks, {best[0]} keeps most under everything that was tried: {figures}"
        f"{cost}.{rest}"
    )


def _gap(cells: Cells, networks: Sequence[str]) -> str:
    """The hardened network whose accuracy on transferred images is furthest above that under white-box."""
    pairs = [
        (cells[name, "transfer"], cells[name, "whitebox"])
        for name in networks
        if name != TARGET and (name, "transfer") in cells and (name, "whitebox") in cells
    ]
    if not pairs:
        return ""
    transfer, whitebox = max(pairs, key=lambda pair: pair[0].accuracy - pair[1].accuracy)
    if transfer.accuracy - whitebox.accuracy < GAP:
        return ""
    return (
        f"Transfer flatters {transfer.network} most: it keeps {percent(transfer)} % of images that were made "
        f"against the undefended network, and {percent(whitebox)} % when it is attacked itself."
    )


def _checks(checks: Sequence[Check] | None) -> str:
    if not checks:
        return "No check of these numbers was made."
    fail, warn = (sum(one.verdict == verdict for one in checks) for verdict in ("fail", "warn"))
    if not fail and not warn:
        return f"All {len(checks)} checks of these numbers hold."
    parts = [f"{fail} {'fails' if fail == 1 else 'fail'}"] if fail else []
    parts += [f"{warn} {'warns' if warn == 1 else 'warn'}"] if warn else []
    return (
        f"Of {len(checks)} checks of these numbers {' and '.join(parts)}: read them before you believe a "
        "number."
    )
