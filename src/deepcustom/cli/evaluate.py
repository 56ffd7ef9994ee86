"""``deepcustom evaluate``: the stage, a network of the user's own in a project, or one without a project."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from deepcustom.base.errors import InputError
from deepcustom.cli import complete
from deepcustom.cli.following import followed
from deepcustom.cli.terminal import Json, Quiet, answering, console_on, print_json

if TYPE_CHECKING:
    from deepcustom.evaluation.own_network import OwnFile
    from deepcustom.evaluation.results import HardenedWith
    from deepcustom.evaluation.scoring import Scores

Subject = Annotated[
    str | None,
    typer.Option(
        help="What is attacked: its name below subjects in params.yaml.",
        autocompletion=complete.subjects,
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        help="Score your own network instead: a .safetensors file, or a .pt2 of torch.export."
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option(
        help="package.module:Class of its weights; by default this project's own network."
    ),
]
Mean = Annotated[
    str, typer.Option(help="Of each channel, as 0.49,0.48,0.45: normalise images before it.")
]
Std = Annotated[str, typer.Option(help="Likewise, what they are then divided by.")]
Count = Annotated[
    int | None,
    typer.Option(min=1, help="Test images to attack; by default as in params.yaml, else 500."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for what --network or --n find; by default below reports/own, without a project "
        "below scores."
    ),
]
Siblings = Annotated[
    bool,
    typer.Option(
        "--with-siblings",
        help="Attack --network with the project's sets, its other networks and its DGNs, too.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Without a project: test images, as a folder with a sub-folder for each class, .npy, .npz or "
        "parquet; of those with a test part, that part."
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        help="With --images: the radius: the largest change of a pixel, such as 0.1 or 8/255."
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(help="With --images: linf, which is the default, or l2: then --eps is a length."),
]
Size = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="With --images: pixels a side that they are brought to."),
]


def evaluate(
    subject: Subject = None,
    network: Network = None,
    architecture: ClassName = None,
    mean: Mean = "",
    std: Std = "",
    n: Count = None,
    out: Out = None,
    with_siblings: Siblings = False,
    images: Images = None,
    eps: Eps = None,
    norm: Norm = None,
    size: Size = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score every network under every protocol; print and save tables and checks."""
    if network is None and (architecture or mean or std or with_siblings):
        raise InputError("--architecture, --mean, --std and --with-siblings go with --network")
    brought = None
    if network is not None:
        from deepcustom.evaluation.own_network import OwnFile

        numbers = _numbers("--mean", mean), _numbers("--std", std)
        brought = OwnFile(network, architecture, *numbers)
    if images is not None:
        for option, given in (
            ("--subject", subject is not None),
            ("--with-siblings", with_siblings),
        ):
            if given:
                raise InputError(f"--images takes the place of a project: leave {option} out")
        with answering(quiet) as answer:
            _alone(brought, images, (eps, norm), size, n, out, Shown(answer, as_json))
    elif subject is None:
        raise InputError("--subject is missing; or --images, for a network without a project")
    elif not (eps is None and norm is None and size is None):
        raise InputError(
            "--eps, --norm and --size go with --images; a project has them in params.yaml"
        )
    else:
        with answering(quiet) as answer:
            _in_project(subject, brought, with_siblings, n, out, Shown(answer, as_json))


@dataclass(frozen=True)
class Shown:
    """Shows what a scoring found on the stream for the answer.

    Attributes:
        answer: the stream.
        as_json: whether as one JSON document, which is printed at the end.
    """

    answer: TextIO
    as_json: bool

    def show(self, found: Scores, subject: str, by: HardenedWith) -> None:
        """Print the tables, before anything is saved."""
        from deepcustom.report.printed import print_scores

        if not self.as_json:
            print_scores(found, subject, by, console_on(self.answer))

    def end(self, found: Scores, subject: str, folder: Path | None) -> None:
        """Print the document; or say where the scores are."""
        from deepcustom.report.printed import left_out

        if self.as_json:
            kept = {
                "subject": subject,
                "results": [asdict(one) for one in found.results],
                "checks": [asdict(one) for one in found.checks],
                "left_out": left_out(found),
                "folder": folder and str(folder),
            }
            print_json(kept, self.answer)
        elif folder:
            print(f"saved in {folder}", file=self.answer)


def _in_project(
    subject: str,
    brought: OwnFile | None,
    siblings: bool,
    n: int | None,
    out: Path | None,
    shown: Shown,
) -> None:
    from deepcustom.pipeline.workspace import Workspace
    from deepcustom.stages import evaluate as stage

    scores: list[Scores] = []

    def show(found: Scores, by: HardenedWith) -> None:
        scores.append(found)
        shown.show(found, subject, by)

    folder = None
    if brought is not None or n is not None:
        ws = Workspace.here()
        folder = stage.run_own(
            ws, subject, brought=brought, siblings=siblings, n=n, out=out, show=show
        )
        if brought is not None and not siblings:
            print("--with-siblings attacks with what the project has, too")
    elif out is not None:
        raise InputError("--out goes with --network or --n")
    else:
        with followed(stage.__name__, subject) as ws:
            stage.run(ws, subject, show)
    for found in scores:
        shown.end(found, subject, folder)


def _alone(
    brought: OwnFile | None,
    images: Path,
    ball: tuple[str | None, str | None],
    size: int | None,
    n: int | None,
    out: Path | None,
    shown: Shown,
) -> None:
    """Score a network on images, both from files, and print what was found."""
    eps, norm = ball
    if brought is None or eps is None:
        lacking = "--eps" if brought else "--network"
        raise InputError(f"{lacking} is missing: --images goes with --network and --eps")
    from deepcustom.library.alone import score_alone

    if out is None and not brought.path.stem.strip("."):
        raise InputError(
            f"--network {brought.path}: its name names no folder: want another, or --out"
        )
    found = score_alone(brought, images, eps, norm or "linf", out=out, size=size, n=n)
    shown.show(found.scores, found.dataset, {})
    found.save()
    shown.end(found.scores, found.dataset, found.folder)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"{option} {text!r}: want numbers with commas between them") from None
