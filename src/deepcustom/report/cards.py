"""Model cards: what a published network is, what it scored, what it is for and what it is not.

After Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv:1810.03993. Every figure is computed
from the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepcustom.evaluation.by_class import ClassAccuracy
from deepcustom.evaluation.results import (
    CLEAN,
    PROTOCOLS,
    HardenedWith,
    Result,
    label_leaks,
    percent,
)
from deepcustom.report.classes import class_table
from deepcustom.report.headline import RULE, sentences
from deepcustom.report.tables import NAMES, ORDER, escape

if TYPE_CHECKING:
    from deepcustom.attacks.norms import Norm

USE = {
    "study": (
        "For research on adversarial robustness: comparing attacks and defences on a small network of known "
        "history."
    ),
    "classifier": (
        "For research on adversarial robustness: comparing attacks and defences on a network of known "
        "history."
    ),
    "bank": (
        "For research on adversarial robustness: making adversarial images in one forward pass each, to test "
        "or harden classifiers of the same images."
    ),
    "conditional": (
        "For research on adversarial robustness: making adversarial images in one forward pass each, from an "
        "image and its label, to test or harden classifiers of the same images."
    ),
    "generator": (
        "For research on adversarial robustness: making starting points for gradient steps inside the ball, "
        "in one forward pass from an image and its label, to test or harden classifiers of the same images."
    ),
}
BEYOND = (
    "Its accuracies under attack hold for the threat model above and say nothing about other norms, larger "
    "changes, or images from other sources. Do not use it where a wrong answer does harm."
)
LIMITS = {
    "study": (
        "A small network with the study's architecture; its accuracy is far below the best known for these "
        f"images. {BEYOND}"
    ),
    "classifier": BEYOND,
    "bank": (
        "Trained against one network, with the true label choosing the generator. The table shows its effect "
        "on other networks; its effect on other images is unknown. A network hardened with its images learns "
        "those images; see the white-box figures on that network's card."
    ),
    "conditional": (
        "Trained against one network, and told the true label of each image. The table shows its effect on "
        "other networks; its effect on other images is unknown. A network hardened with its images learns "
        "those images; see the white-box figures on that network's card."
    ),
    "generator": (
        "It was trained together with the network it attacks, and gradient steps always followed its output, "
        "so no table here shows how strong its images are on their own. That network's card says what the "
        "network withstands."
    ),
}
BALL = "and only within the ball of the threat model: its training says nothing about images outside it."
TYPES = {
    "madry": (
        "Trained only on images that PGD made against it afresh in every step (Madry et al. 2018, "
        f"[arXiv:1706.06083](https://arxiv.org/abs/1706.06083)), {BALL}"
    ),
    "online": (
        "It was trained on adversarial images made afresh in every step: {steps} from a "
        f"starting point proposed by a generator that was trained against it at the same time, {BALL}"
    ),
}
"""Way of hardening (``type`` in ``params.yaml``) → what else limits a network hardened that way.

``{steps}`` stands for the steps of its attack.
"""


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        kind: ``study`` for a network with the study's architecture, ``classifier`` for any other, ``bank``,
            ``conditional`` for a bank that is one DGN and is told the label, or ``generator`` for one that
            learned with a network.
        name: its name in the tables: ``target``, the attack it was hardened with, or a bank's own
            name.
        title: what it is, in words.
        path: path of its file.
        md5: md5 of its file.
        parameters: number of trained parameters; for a bank, those of one of its generators.
    """

    kind: str
    name: str
    title: str
    path: str
    md5: str
    parameters: int

    @property
    def is_network(self) -> bool:
        """Whether it classifies images."""
        return self.kind in ("study", "classifier")


def card(
    model: Model,
    dataset: str,
    dataset_title: str,
    results: Sequence[Result],
    *,
    hardened_with: HardenedWith,
    norm: Norm,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    classes: Sequence[ClassAccuracy] = (),
) -> str:
    """The card as Markdown.

    Args:
        model: the model that the card describes.
        dataset: the name of the subject in ``results``.
        dataset_title: the name of its data set for people.
        results: all results; those of other subjects are left out.
        hardened_with: network → the attack it was hardened with.
        norm: of the threat model.
        facts: what else is known, name → value: the data, the threat model.
        settings: the model's section of ``params.yaml``.
        classes: the accuracy of each network per class; shown if classes are of very unequal size.
    """
    # The facts at the top of the card.
    rows = {
        "file": f"`{model.path}`",
        "md5": f"`{model.md5}`",
        "parameters": f"{model.parameters:,}" + (" per generator" if model.kind == "bank" else ""),
        **facts,
        "settings": ", ".join(f"{key} {value}" for key, value in _flat(settings)),
    }
    # What it scored: a network as one that is attacked, a bank or a generator as an attack.
    own = [result for result in results if result.dataset == dataset]
    scores = (
        _as_network(own, model.name, hardened_with)
        if model.is_network
        else _as_attack(own, model.name, hardened_with)
    )
    per_class = class_table(classes, model.name) if model.is_network else ""
    limit = TYPES.get(str(settings.get("type"))) if model.is_network else None
    parts = [
        f"# {escape(dataset_title)}: {escape(model.title)}\n",
        "\n".join(
            ["| | |", "| --- | --- |", *(f"| {k} | {escape(v)} |" for k, v in rows.items()), ""]
        ),
        f"`deepcustom trace {model.path}` shows the runs, code and data behind it, and verifies them.\n",
        *scores,
        *([f"## Accuracy per class\n\n{per_class}"] if per_class else []),
        f"## Use\n\n{USE[model.kind]}\n",
        f"## Limits\n\n{LIMITS[model.kind]}\n",
        *([f"{limit.format(steps=norm.steps)}\n"] if limit else []),
    ]
    return "\n".join(parts)


def _as_network(results: Sequence[Result], network: str, hardened_with: HardenedWith) -> list[str]:
    """What the network withstands: a section per protocol, the headline first, and what is suspicious."""
    dataset = results[0].dataset if results else ""
    sections = []
    for protocol in ORDER:
        rows = [r for r in results if (r.network, r.protocol) == (network, protocol)]
        if rows:
            title = "Headline" if protocol == "worst" else "Accuracy"
            head = f"## {title}: {NAMES[protocol].lower()}\n\n{PROTOCOLS[protocol]}\n"
            sections.append(f"{head}\n{_table('images', ((r.attack, r) for r in rows))}")
        if rows and protocol == "worst":
            sections.append(f"In words: {sentences(results, dataset)[network]} {RULE}\n")
    for leak in label_leaks(results, dataset, hardened_with):
        if leak.own.network == network:
            sections.append(
                f"**Label leak.** {percent(leak.own)} % on `{leak.own.attack}` images is above "
                f"{percent(leak.clean)} % on clean ones: the network learned to read the true label off the "
                "perturbation. It is not evidence of robustness.\n"
            )
    return sections


def _as_attack(results: Sequence[Result], bank: str, hardened_with: HardenedWith) -> list[str]:
    """What each network still gets right on the bank's images."""
    rows = [r for r in results if r.protocol == "transfer" and r.attack == bank]
    if not rows:
        return []
    clean = {r.network: r for r in results if r.protocol == "transfer" and r.attack == CLEAN}
    head = (
        f"## What it does\n\n{PROTOCOLS['transfer']}\n\n"
        "Accuracy of each network on this bank's images; `target` is the network it was trained against.\n"
    )
    own = {network for network, attack in hardened_with.items() if attack == bank}
    marked = (
        (f"{r.network} (hardened with it)" if r.network in own else r.network, r) for r in rows
    )
    table = _table("network", marked)
    before = ", ".join(f"{name} {percent(result)} %" for name, result in clean.items())
    return [f"{head}\n{table}", f"On clean images: {before}.\n" if clean else ""]


def _table(first: str, rows: Iterable[tuple[str, Result]]) -> str:
    lines = [f"| {first} | accuracy, % | 95 % interval | n |", "| --- | ---: | ---: | ---: |"]
    for name, result in rows:
        interval = (
            "-" if result.empty else f"{100 * result.ci_low:.2f} to {100 * result.ci_high:.2f}"
        )
        lines.append(f"| {escape(name)} | {percent(result)} | {interval} | {result.n:,} |")
    return "\n".join([*lines, ""])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in settings.items():
        flat += (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else [(prefix + name, value)]
        )
    return flat
