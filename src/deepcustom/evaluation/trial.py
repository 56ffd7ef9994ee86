"""A user's network tried before it is scored, on the very images that will be attacked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from deepcustom.base.progress import silent
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.transfer import Network
from deepcustom.training.prediction import BATCH
from deepcustom.training.trial import Trial, tried

if TYPE_CHECKING:
    from deepcustom.evaluation.scoring import ScoringInputs, Testbed

__all__ = ["Trial", "batch_sizes", "say", "tried", "tried_first", "tried_on"]


def batch_sizes(params: EvaluateParams, n: int) -> list[int]:
    """How many images an evaluation that attacks ``n`` shows a network at once, rising."""
    attacks = [attack.batch_size for attack in (*params.whitebox.values(), params.surrogate)]
    attacks.append(params.autoattack.batch_size)
    others = (BATCH, params.adaptive.training.batch_size)  # on other images, too
    return sorted({*others, *(min(size, n) for size in attacks)})


def tried_on(bed: Testbed, network: Network) -> Network:
    """Try a network on the images that are attacked; say what was healed and what is suspicious.

    Returns:
        The network as attacks may use it. What was put around it is part of its ``source``.

    Raises:
        InputError: in one line: it cannot be scored, and why.
    """
    victim = bed.victim(network, silent)
    sizes = batch_sizes(bed.params, len(victim.x))
    trial = tried(
        network.net,
        victim.x,
        victim.y,
        victim.num_classes,
        bed.compute,
        network.name,
        sizes=sizes,
    )
    say(trial.notes)
    if not trial.remedy.needed:
        return network
    kept = json.dumps([network.source, trial.remedy.as_json()], sort_keys=True)
    return replace(network, net=trial.net, source=hashlib.sha256(kept.encode()).hexdigest())


def tried_first(inputs: ScoringInputs) -> ScoringInputs:
    """Inputs of a scoring, with the user's network as :func:`tried_on` gives it.

    Raises:
        InputError: as there.
    """
    own = inputs.own
    return inputs if own is None else replace(inputs, own=tried_on(inputs.bed, own))


def say(notes: Iterable[str]) -> None:
    """Print notes of a trial."""
    for note in notes:
        print(f"note: {note}")
