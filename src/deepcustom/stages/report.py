"""The page of a subject: tables, pictures, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.rows import adversarial_sets, row, rows
from deepcustom.base.settings import DLR_CLASSES, AttackSetParams, EvaluateParams, ReportParams
from deepcustom.data import arrays
from deepcustom.data.datasets import DatasetSpec
from deepcustom.evaluation.by_class import classes_of
from deepcustom.evaluation.files import read_checks, read_pairs, read_points
from deepcustom.evaluation.results import PROTOCOLS, Result, pivot, read_csv, unclipped
from deepcustom.pipeline import workspace
from deepcustom.pipeline.adversarial_set import set_grid
from deepcustom.pipeline.cards import model_cards, threat_in_words
from deepcustom.pipeline.hardened import hardened_with
from deepcustom.pipeline.histories import read_history
from deepcustom.pipeline.load import load_classifier, load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import accuracy_heatmap, loss_curves, robustness_curves, save_figure
from deepcustom.report.page import Pictures, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(ws: Workspace, subject: str) -> None:
    """Write the report of ``subject`` and its pictures."""
    with StageRun(ws, "report", subject) as stage:
        params = stage.settings(ReportParams)
        spec = load_dataset(stage)

        results = read_csv(stage.read(workspace.results(subject)))
        checks = read_checks(stage.read(workspace.checks(subject)))
        points = read_points(stage.read(workspace.curves(subject)))
        pairs = read_pairs(stage.read(workspace.pairs(subject)))
        classes = classes_of(checks, spec.classes)

        # Draw every picture.
        by = hardened_with(stage.tree, subject)
        there = [name for name in PROTOCOLS if pivot(results, subject, name)[2]]
        heatmaps = {name: accuracy_heatmap(results, subject, name, by) for name in there}
        robustness = {
            f"against {curve}": robustness_curves(
                points, curve, f"{spec.title}: accuracy against {curve}"
            )
            for curve in dict.fromkeys(point.curve for _, point in points)
        }
        grids = _image_grids(stage, spec, results, params.grid_columns)
        curves = _training_curves(stage, spec)

        # Save the pictures, and the page that links to them.
        folder = stage.write(workspace.figures(subject))
        folder.mkdir()
        pictures = Pictures(
            heatmaps=_save(heatmaps, folder, subject, "accuracy"),
            grids=_save(grids, folder, subject, "images"),
            curves=_save(curves, folder, subject, "curves"),
            robustness=_save(robustness, folder, subject, "accuracy"),
        )
        text = page(
            spec.title,
            results,
            subject,
            hardened_with=by,
            facts=_facts(stage, spec),
            pictures=pictures,
            checks=checks,
            pairs=pairs,
            classes=classes,
        )
        stage.write(workspace.page(subject)).write_text(text)

        # Write a card for each model.
        cards = model_cards(stage, spec, results, by, classes)
        folder = stage.write(workspace.cards(subject))
        folder.mkdir()
        for name, card in cards.items():
            (folder / f"{name}.md").write_text(card)

        drawn = len(heatmaps) + len(grids) + len(curves) + len(robustness)
        stage.log({"pictures": drawn, "cards": len(cards)})


def _facts(stage: StageRun, spec: DatasetSpec) -> dict[str, str]:
    """The threat model and the settings of the attacks, in words."""
    facts = {"threat model": threat_in_words(stage)}
    evaluated = stage.settings_of(row(stage.tree, "evaluate", stage.row.subject), EvaluateParams)
    for one in rows(stage.tree, "attack", stage.row.subject):
        if one.about["split"] == "test":
            made = stage.settings_of(one, AttackSetParams)
            facts[f"{one.about['attack']}, transferred"] = made.describe()
    facts["images attacked"] = f"{evaluated.n:,} at most; adversarial sets are scored whole"
    for attack, known in evaluated.whitebox.items():
        facts[f"{attack}, white-box"] = known.describe()
    auto, adaptive = evaluated.autoattack, evaluated.adaptive
    facts["apgd-ce, apgd-t"] = f"{auto.max_iter} steps, {auto.num_random_init} random start(s)"
    if spec.num_classes < DLR_CLASSES:
        facts["apgd-t"] = "follows the difference of two logits: its usual ratio needs four classes"
    facts["square"] = f"{auto.queries:,} queries per image"
    facts["from-NETWORK"] = f"made against that network: {evaluated.surrogate.describe()}"
    few = adaptive.images_per_class
    seen = f"{few:,} images per class" if few else "all training images"
    facts["adaptive"] = (
        f"{adaptive.bank}, trained on for {adaptive.training.epochs} epoch(s) of {seen}"
    )
    return facts


def _image_grids(
    stage: StageRun, spec: DatasetSpec, results: Sequence[Result], columns: int
) -> dict[str, Figure]:
    """Attack → clean and adversarial images, one of each class."""
    compute, threat = stage.compute(), ThreatModel.of(stage.subject.threat)
    target_net = load_classifier(stage, "target", compute)
    attacks = adversarial_sets(stage.tree, stage.row.subject)
    made_by = {name(attack): attack for attack in attacks for name in (str, unclipped)}
    figures = {}
    for attack in pivot(results, stage.row.subject, "transfer")[1]:
        if attack == "clean":
            continue
        path = workspace.adversarial(stage.row.subject, "test", made_by.get(attack, attack))
        made = arrays.AdversarialSet.load(stage.read(path), spec)
        title = f"{attack} against the target network"
        figures[attack] = set_grid(made, spec, target_net, compute, threat, title, columns=columns)
    return figures


def _training_curves(stage: StageRun, spec: DatasetSpec) -> dict[str, Figure]:
    """Name of a trained network or bank → its curves over the epochs."""
    folder = stage.read(workspace.training_folder(stage.row.subject))
    figures = {}
    for file in sorted(folder.rglob("*.csv"), key=_order):
        what = "target" if file.stem == "train_target" else f"{file.parent.name}-{file.stem}"
        figures[what] = loss_curves(read_history(file), f"{spec.title}: {what}")
    return figures


def _order(file: Path) -> tuple[int, str]:
    """As networks come about: the target, banks, hardened networks."""
    if file.stem == "train_target":
        return 0, ""
    return 1 + ("train_dgn", "adversarial_train", "train_online").index(file.parent.name), file.stem


def _save(figures: dict[str, Figure], folder: Path, subject: str, prefix: str) -> dict[str, str]:
    """Save every picture; returns caption → link from the page."""
    links = {}
    for caption, figure in figures.items():
        name = f"{prefix}-{caption.replace(' ', '-')}.png"
        save_figure(figure, folder / name)
        links[caption] = f"{Path(workspace.figures(subject)).relative_to('reports')}/{name}"
    return links
