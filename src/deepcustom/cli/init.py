"""``deepcustom init``: a project of one's own in a new folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from deepcustom.base.errors import InputError
from deepcustom.base.files import named
from deepcustom.cli.terminal import Json, Quiet, answering, print_json

if TYPE_CHECKING:
    from deepcustom.pipeline.start.images import Images
    from deepcustom.pipeline.start.project import Brought, Laid
    from deepcustom.pipeline.start.starter import Answers, Architectures

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]
OwnImages = Annotated[
    Path | None,
    typer.Option(
        help="Your images: a folder with a sub-folder for each class, .npy, .npz, parquet."
    ),
]
BuiltIn = Annotated[str | None, typer.Option(help="Or a built-in data set: mnist or cifar10.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="small, resnet, resnet18, mnist, cifar10, or FILE.py:Class, which is copied to own/nets."
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        help="The radius: the largest change of a pixel, in units of [0, 1]: 0.1, or 8/255."
    ),
]
Norm = Annotated[
    str,
    typer.Option(help="linf: eps bounds each pixel's change; l2: the change's Euclidean length."),
]
Name = Annotated[
    str | None, typer.Option(help="Of the subject; by default that of the images or the data set.")
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Of training a network; by default by the number of images."),
]
Size = Annotated[
    int | None,
    typer.Option(min=8, max=256, help="Pixels a side that your images are brought to."),
]


def init(
    folder: Folder,
    images: OwnImages = None,
    dataset: BuiltIn = None,
    network: Network = None,
    eps: Eps = None,
    norm: Norm = "linf",
    name: Name = None,
    epochs: Epochs = None,
    size: Size = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Lay down a project in a new folder, for your images and your network."""
    from deepcustom.pipeline.start.project import lay_down, refuse_occupied
    from deepcustom.pipeline.start.starter import params_text

    refuse_occupied(folder)
    images, dataset = _source(images, dataset)
    found = _found(images, dataset)
    called = _name(name or dataset or (named(images).stem if images else ""))
    classes, brought = _network(network, dataset)
    ball = _ball(eps, norm, dataset)
    answers = _answers(called, images, dataset, classes, ball, epochs, size, found)
    text = params_text(answers, found)
    if images and answers.path:
        brought = [_taken(images, answers.path), *brought]
    with answering(quiet) as answer:
        if images and answers.path:
            print(f"copying {images} to {folder / answers.path}")
        laid = lay_down(folder, text, answers, found, brought)
        if as_json:
            print_json(_document(folder, answers, found, laid), answer)
        else:
            for line in _told(folder, answers, found, laid):
                print(line, file=answer)


def _source(images: Path | None, dataset: str | None) -> tuple[Path | None, str | None]:
    """The images or the data set, asked for where neither is given."""
    if images and dataset:
        raise InputError("--images and --dataset: name one of them")
    if images or dataset:
        return images, dataset
    said = _ask("your images (a folder or a file), or mnist or cifar10", "--images or --dataset")
    return (None, said) if said in ("mnist", "cifar10") else (Path(said).expanduser(), None)


def _found(images: Path | None, dataset: str | None) -> Images:
    from deepcustom.pipeline.start.images import built_in, look

    return look(images) if images else built_in(str(dataset))


def _network(given: str | None, dataset: str | None) -> tuple[Architectures, list[Brought]]:
    """The classes of the subject, and the file of the user's own network, if it is one."""
    from deepcustom.pipeline.start.starter import ANY, NETWORKS, Architectures

    word = (
        given or dataset or _ask("network: small, resnet, resnet18, or FILE.py:Class", "--network")
    )
    if word in NETWORKS:
        if word in ("mnist", "cifar10") and word != dataset:
            raise InputError(
                f"--network {word} is made for --dataset {word}: choose small, resnet or resnet18"
            )
        return NETWORKS[word], []
    module, colon, cls = word.partition(":")
    if not (colon and module and cls):
        names = ", ".join(NETWORKS)
        raise InputError(f"--network {word!r}: want {names}, or FILE.py:Class")
    if not module.endswith(".py"):
        if module.partition(".")[0] != "deepcustom":
            raise InputError(
                f"--network {word}: {module} is no module of deepcustom: name the file of your class, "
                f"FILE.py:{cls}"
            )
        return Architectures(word, *ANY), []
    file = Path(module)
    if not file.is_file() or not file.stem.isidentifier():
        raise InputError(
            f"--network {word}: {module} is no file, or its name is no name of a module"
        )
    return Architectures(f"own.nets.{file.stem}:{cls}", *ANY), [
        _taken(file, f"own/nets/{file.name}")
    ]


def _ball(eps: str | None, norm: str, dataset: str | None) -> tuple[str, str]:
    """The norm, and the radius, asked for where neither the user nor the data set gives one."""
    from deepcustom.attacks.norms import NORMS
    from deepcustom.pipeline.start.starter import EPS

    if norm not in EPS:
        raise InputError(f"--norm {norm!r}: choose from {', '.join(EPS)}")
    if eps is None and dataset:
        return norm, EPS[norm][dataset]
    such = "0.1 or 8/255" if norm == "linf" else "0.5"
    return norm, eps or _ask(f"eps, the {NORMS[norm].bounded}, such as {such}", "--eps")


def _answers(
    called: str,
    images: Path | None,
    dataset: str | None,
    classes: Architectures,
    ball: tuple[str, str],
    epochs: int | None,
    size: int | None,
    found: Images,
) -> Answers:
    from deepcustom.pipeline.start.starter import Answers

    norm, eps = ball
    if images is None:
        return Answers(called, str(dataset), None, classes, eps, epochs, norm=norm)
    suffix = images.suffix if images.is_file() else ""
    path = f"data/own/{called}{suffix}"
    own = (size, size) if size else found.size if found.sizes_vary else None
    return Answers(called, called, path, classes, eps, epochs, own, norm)


def _taken(source: Path, path: str) -> Brought:
    from deepcustom.pipeline.start.project import Brought

    return Brought(source, path)


def _name(text: str) -> str:
    """A name for files and for rows, from any text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not name[:1].isalpha() or not isinstance(yaml.safe_load(name), str):
        raise InputError(
            f"--name {text!r}: want a name that begins with a letter, and is no word such as true"
        )
    return name


def _ask(what: str, option: str) -> str:
    """Ask on a terminal.

    Raises:
        InputError: there is no terminal, or no answer.
    """
    said = ""
    if sys.stdin.isatty():
        said = str(typer.prompt(what)).strip()
    if not said:
        raise InputError(f"{option} is missing: {what}")
    return said


def _document(folder: Path, answers: Answers, images: Images, laid: Laid) -> dict[str, object]:
    """What is there, how long the first run will take, and what to type next, as data."""
    from deepcustom.base.params import read_params
    from deepcustom.pipeline.start.estimate import seconds
    from deepcustom.pipeline.start.starter import split_sizes

    sizes = split_sizes(images)
    return {
        "folder": str(folder),
        "subject": answers.name,
        "classes": images.classes,
        "shape": list(images.shape),
        "size": answers.size,
        "images": dict(sizes),
        "seconds_per_image": laid.pace.network,
        "seconds_per_image_of_generator": laid.pace.generator,
        "first_run_seconds": seconds(read_params(folder / "params.yaml"), sizes, laid.pace),
        "git": laid.git,
        "git_says": laid.why,
        "next": [f"cd {folder}", "dvc repro", "deepcustom results"],
    }


def _told(folder: Path, answers: Answers, images: Images, laid: Laid) -> Iterator[str]:
    """The same in lines for people."""
    from deepcustom.base.params import read_params
    from deepcustom.pipeline.start.estimate import seconds
    from deepcustom.pipeline.start.starter import split_sizes

    sizes, shape = split_sizes(images), " x ".join(map(str, images.shape))
    counts = ", ".join(f"{count:,} {part}" for part, count in sizes.items())
    yield f"{answers.name}: {images.classes} classes, images {shape}; {counts}"
    if answers.size:
        yield "images will be brought to {} x {}: `--size` chooses another".format(*answers.size)
    whole = seconds(read_params(folder / "params.yaml"), sizes, laid.pace)
    yield f"this machine trains the network on {1 / laid.pace.network:,.0f} images a second"
    estimate = "an estimate from a few steps of training"
    yield f"the first run will take roughly {_in_words(whole)}: {estimate}"
    if laid.git == "staged":
        yield f"git committed nothing: {laid.why}"
        yield (
            "if it does not know you: `git config user.name NAME` and `git config user.email ADDRESS` "
            'there; then `git commit -m "A new project"`'
        )
    if laid.git == "inside":
        yield f"it is a part of the git repository around it: `git add {folder}`, and commit"
    if laid.git == "missing":
        yield "git is not installed, so the project has no history"
    yield f"next: cd {folder} && dvc repro && deepcustom results"


def _in_words(whole: float) -> str:
    if whole < 5400:
        return f"{max(1, round(whole / 60))} minutes"
    return f"{whole / 3600:.1f} hours"
