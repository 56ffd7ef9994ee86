"""The whole evaluation of one network: every protocol, the curves, and the checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation import checks
from deepcustom.evaluation.adaptive import adaptive
from deepcustom.evaluation.autoattack import autoattack
from deepcustom.evaluation.blackbox import blackbox
from deepcustom.evaluation.check_table import Evidence, network_checks
from deepcustom.evaluation.curves import curves
from deepcustom.evaluation.found import Evaluation, Finding
from deepcustom.evaluation.material import Material
from deepcustom.evaluation.results import AUTOATTACK, CLEAN
from deepcustom.evaluation.score_store import Pieces
from deepcustom.evaluation.victim import Attack, Cost, Victim
from deepcustom.evaluation.whitebox import APGD, MORE, spend_more, whitebox
from deepcustom.training.compute import Compute


def evaluate_whitebox(
    victim: Victim, params: EvaluateParams, pieces: Pieces | None = None
) -> Evaluation:
    """Attack a network with known weights; if ``pieces`` is None, nothing is kept.

    Where AutoAttack is asked for, the rows of APGD are what its APGD did, which takes minutes, so they are
    left out: see :func:`evaluate_all`.
    """
    found = Evaluation()
    pieces = pieces or Pieces(victim, "")
    series = whitebox(victim, params.whitebox, params.autoattack, found.stands)
    if params.autoattack.version is not None:
        series = (attack for attack in series if attack.name not in APGD)
    _attack(series, found, pieces)
    return found


def evaluate_all(
    victim: Victim,
    params: EvaluateParams,
    material: Material,
    pieces: Pieces | None = None,
    *,
    compute: Compute,
) -> Evaluation:
    """Attack a network in every way, and check that the figures can be believed.

    Args:
        victim: the network and the images.
        params: all settings.
        material: what attackers have at hand; a protocol that nothing is there for is left out.
        pieces: the stored pieces of this network; None: nothing is kept.
        compute: device and precision for the DGNs that are adapted.

    Returns:
        The protocols, the curves and the checks; ``stands["clean"]`` holds the answers without an attack.
    """
    found = Evaluation()
    pieces = pieces or Pieces(victim, "")
    found.stands[CLEAN] = {CLEAN: victim.right.cpu()}
    if material.sets:
        found.stands["transfer"] = dict(material.sets)
    _attack(_attacks(victim, params, material, found, compute), found, pieces)

    pgd = params.whitebox["pgd"]
    settings = {
        "curves": params.curves.model_dump(),
        "pgd": pgd.model_dump(exclude={"num_random_init"}),  # each point has one start
    }
    found.points += pieces.points(settings, lambda: list(curves(victim, params.curves, pgd)))
    pieces.say("curves")
    evidence = Evidence(victim, params, found, pieces)
    found.checks += network_checks(evidence)
    pieces.say("checks")
    return found


def _attacks(
    victim: Victim, params: EvaluateParams, material: Material, found: Evaluation, compute: Compute
) -> Iterator[Attack | Finding]:
    """Yield every attack; the caller adds its finding to ``found`` before it asks for the next one."""
    yield from autoattack(victim, params.autoattack, found.stands)
    for attack in whitebox(victim, params.whitebox, params.autoattack, found.stands):
        yield _once(attack, found)
    yield from blackbox(victim, material.surrogates, params.autoattack)
    left = found.left("whitebox")
    if checks.beaten(left, found.stands["blackbox"]["square"]) > checks.FEW:
        # An attacker who knows the weights should beat Square: spend more before believing otherwise.
        yield spend_more(victim, params.autoattack, left)
    if material.dgns is not None:
        yield from adaptive(victim, material.dgns, params.adaptive, compute=compute)


def _once(attack: Attack, found: Evaluation) -> Attack | Finding:
    """``attack``, or what AutoAttack's attack of that name has already done to the same images."""
    for one in found.findings:
        if (one.protocol, one.attack) == (AUTOATTACK, attack.name):
            left = attack.settings["rows"].cpu()
            own = {"protocol": attack.protocol, "tried": left, "stands": one.stands & left}
            return replace(one, **own, cost=Cost(), unlike=0)
    return attack


def _attack(attacks: Iterator[Attack | Finding], found: Evaluation, pieces: Pieces) -> None:
    """Run each attack, or take it from the store, and add its finding to ``found``."""
    for attack in attacks:
        finding = attack if isinstance(attack, Finding) else pieces.finding(attack)
        found.add(finding)
        note = f"{finding.attack} leaves {100 * finding.accuracy:.1f} %"
        extra = finding.attack == MORE or finding.protocol == AUTOATTACK
        pieces.say(note, steps=int(not extra))
