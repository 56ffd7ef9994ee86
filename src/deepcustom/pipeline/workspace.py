"""Where every file of a project lies; the only module that spells out paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from deepcustom.base.errors import InputError

SPLITS = ("train", "val", "test")

RAW = "data/raw"
"""Downloads, kept for the next time; no stage declares them as an output."""
OWN_IMAGES = "data/own"
"""Images that the user brought."""
OWN_NETS = "own/nets"
"""The user's own networks."""
OWN_CODE = ("own/data", OWN_NETS, "own/losses")
"""The user's own code: functions that give images, networks, losses."""


@dataclass(frozen=True)
class Workspace:
    """A folder with ``dvc.yaml`` and ``params.yaml``; paths are relative to it."""

    root: Path

    @classmethod
    def here(cls) -> Workspace:
        """The current folder.

        Raises:
            InputError: it is not a project's top folder.
        """
        root = Path.cwd()
        for name in ("dvc.yaml", "params.yaml"):
            if not (root / name).is_file():
                raise InputError(f"no {name} here: run this from the project's top folder")
        return cls(root)

    @property
    def params(self) -> Path:
        """The settings."""
        return self.root / "params.yaml"

    def path(self, relative: str) -> Path:
        """Where ``relative`` lies.

        Raises:
            InputError: it leads out of the project.
        """
        pure = PurePath(relative)
        if pure.is_absolute() or ".." in pure.parts:
            raise InputError(f"{relative} leads out of the project's folder")
        return self.root / pure

    @property
    def runs(self) -> Path:
        """The folder that holds the records of all runs."""
        return self.root / "reports/runs"

    def raw(self, dataset: str) -> Path:
        """A data set's downloads."""
        return self.root / RAW / dataset

    def checkpoint(self, stage: str, item: str) -> Path:
        """Where an interrupted run keeps what it had finished, away from outputs, which DVC removes."""
        return self.root / ".checkpoints" / stage / item

    def scores(self, dataset: str) -> Path:
        """Scores that later runs may reuse, whichever stage or command made them."""
        return self.root / ".checkpoints/scores" / dataset


# Paths keyed by the data set, so that subjects can share the files.


def dataset(name: str) -> str:
    """The description of a data set, as ``prepare`` wrote it."""
    return f"data/prepared/{name}/dataset.json"


def data_record(dataset: str) -> str:
    """What ``prepare`` noticed about a data set: counts, and what is suspicious."""
    return f"reports/data/{dataset}.json"


def split(dataset: str, name: str) -> str:
    """A prepared split: ``train``, ``val`` or ``test``."""
    return f"data/prepared/{dataset}/{name}"


# Paths keyed by the subject.


def analysis(subject: str, name: str) -> str:
    """What an analysis of the target network found."""
    return f"data/analysis/{subject}/{name}.safetensors"


def target(subject: str) -> str:
    """The network under attack."""
    return f"models/target/{subject}.safetensors"


def bank(subject: str, name: str) -> str:
    """A bank of DGNs."""
    return f"models/dgn/{subject}/{name}.safetensors"


def adversarial(subject: str, split_name: str, attack: str) -> str:
    """An adversarial set: a split, perturbed by one attack on the target network."""
    return f"data/adversarial/{subject}/{split_name}/{attack}"


def robust(subject: str, name: str) -> str:
    """A hardened network."""
    return f"models/robust/{subject}/{name}.safetensors"


def network(subject: str, name: str) -> str:
    """Any network by its name in the tables."""
    return target(subject) if name == "target" else robust(subject, name)


def results(subject: str) -> str:
    """The table of robust accuracies."""
    return f"reports/results/{subject}.csv"


def checks(subject: str) -> str:
    """The checks that say whether the results can be trusted."""
    return f"reports/checks/{subject}.json"


def curves(subject: str) -> str:
    """Accuracy against eps, and against steps, of each network."""
    return f"reports/curves/{subject}.csv"


def pairs(subject: str) -> str:
    """Networks compared two by two on the same images."""
    return f"reports/pairs/{subject}.csv"


def own_scores(subject: str, name: str) -> str:
    """The folder of a user's own evaluation, which is not part of the pipeline."""
    return f"reports/own/{subject}/{name}"


def metrics(subject: str, stage: str, *parts: str) -> str:
    """What a stage's run measured, and the hash of each file of data or weights that it made."""
    if stage == "page":  # which reads all the others
        return f"reports/page/{subject}.json"
    return f"{'/'.join(['reports/metrics', subject, stage, *_joined(parts)])}.json"


READ_ALL = ("evaluate", "report", "gallery", "page")
"""The stages that read all banks, networks and sets of a subject, whichever there are."""


def metrics_of(path: str) -> list[str]:
    """The files of :func:`metrics` that may hold the hash of what a stage made.

    They are small and in git, so they are there where the file itself is not. DVC follows them in its place,
    where a stage reads all banks, networks or sets of a subject.
    """
    match Path(path).with_suffix("").parts if path.startswith("models/") else Path(path).parts:
        case ("models", "dgn", subject, name):
            return [metrics(subject, stage, name) for stage in ("train_dgn", "train_online")]
        case ("models", "robust", subject, name):
            return [
                metrics(subject, stage, name) for stage in ("adversarial_train", "train_online")
            ]
        case ("data", "adversarial", subject, split_name, attack):
            return [metrics(subject, stage, attack, split_name) for stage in ("generate", "attack")]
        case ("data", "analysis", subject, file):
            return [metrics(subject, file.partition(".")[0])]
        case ("data", "gallery", file):
            return [metrics(file.removesuffix(".safetensors"), "gallery")]
    return []


def training(subject: str, stage: str, *parts: str) -> str:
    """The curves of a training over its epochs."""
    return f"{'/'.join(['reports/training', subject, stage, *_joined(parts)])}.csv"


def training_folder(subject: str) -> str:
    """The curves of every training of a subject."""
    return f"reports/training/{subject}"


def headline(subject: str) -> str:
    """What answers whether it got better: clean accuracy, worst cases and seconds, as DVC's metrics."""
    return f"reports/headline/{subject}.json"


def record(subject: str, stage: str, *parts: str) -> str:
    """The folder of a stage run's record."""
    return "/".join(["reports/runs", subject, stage, *_joined(parts)])


def _joined(parts: tuple[str, ...]) -> list[str]:
    return ["-".join(parts)] if parts else []


def page(subject: str) -> str:
    """The report."""
    return f"reports/{subject}.md"


def figures(subject: str) -> str:
    """The report's pictures."""
    return f"reports/figures/{subject}"


def cards(subject: str) -> str:
    """A card for each published model."""
    return f"reports/cards/{subject}"


def gallery(subject: str) -> str:
    """Some images of each adversarial test set."""
    return f"data/gallery/{subject}.safetensors"


def web_page(name: str) -> str:
    """The page of the project that a browser opens."""
    return f"reports/{name}.html"


PAGE_READS = (
    "reports/results",
    "reports/checks",
    "reports/curves",
    "reports/pairs",
    "reports/training",
    "reports/metrics",
)
"""The folders that the page reads, of all subjects."""
PAGE_SHOWS = ("data/analysis", "data/gallery")
"""The folders of files of which it shows those that are here; their runs' accounts tell their hashes."""


def producer(path: str) -> str:
    """The DVC stage that makes ``path``, for messages; empty where none does."""
    parts = Path(path).with_suffix("").parts
    makers: dict[tuple[str, ...], str] = {
        ("data", "prepared"): "prepare@{2}",
        ("data", "analysis"): "{3}@{2}",
        ("data", "gallery"): "gallery@{2}",
        ("data", "adversarial"): "--glob '*@{2}-{4}-{3}'",
        ("models", "target"): "train_target@{2}",
        ("models", "dgn"): "--glob 'train_*@{2}-{3}'",
        ("models", "robust"): "--glob '*train*@{2}-{3}'",
        ("reports", "data"): "prepare@{2}",
        ("reports", "cards"): "report@{2}",
        ("reports", "results"): "evaluate@{2}",
        ("reports", "checks"): "evaluate@{2}",
        ("reports", "curves"): "evaluate@{2}",
        ("reports", "pairs"): "evaluate@{2}",
        ("reports", "headline"): "evaluate@{2}",
        ("reports", "metrics"): "--glob '{3}@{2}*'",
        ("reports", "training"): "--glob '*train*@{2}*'",
    }
    form = makers.get(parts[:2])
    return form.format(*parts) if form else ""
