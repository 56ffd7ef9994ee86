"""How ``params.yaml`` is laid out: its sections, the rows in them, and the recipes that rows share.

One run of a stage is one row: ``train_dgn.mnist-lrp`` is the stage ``train_dgn@mnist-lrp``. Its name is put
together from what the row says of itself, such as subject and bank; its settings are those of its
recipe, with its own laid over them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deepcustom.base.errors import ParamsError
from deepcustom.base.params import found_value, section

RECIPES, SUBJECTS, RECIPE = "recipes", "subjects", "recipe"


@dataclass(frozen=True)
class Layout:
    """What the rows of a section hold next to their settings.

    Attributes:
        names: the keys whose values, joined by ``-``, are the row's name; none where it is named by its
            subject or data set alone.
        recipe: whether a row names a recipe.
        files: the keys that name a file which the row depends on.
        dataset: whether it names the data set of its subject.
    """

    names: tuple[str, ...] = ()
    recipe: bool = False
    files: tuple[str, ...] = ()
    dataset: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """All that is no setting."""
        recipe = (RECIPE,) if self.recipe else ()
        dataset = ("dataset",) if self.dataset else ()
        return (*self.names[:1], *dataset, *self.names[1:], *recipe, *self.files)


LAYOUTS = {
    "prepare": Layout(files=("code",), dataset=False),
    "train_target": Layout(),
    "relevance": Layout(),
    "suspiciousness": Layout(),
    "train_dgn": Layout(("subject", "bank"), recipe=True, files=("code", "reads")),
    "generate": Layout(("subject", "bank", "split"), recipe=True),
    "attack": Layout(("subject", "attack", "split"), recipe=True),
    "adversarial_train": Layout(("subject", "network"), recipe=True, files=("code", "reads")),
    "train_online": Layout(("subject", "network"), recipe=True, files=("code", "reads")),
    "evaluate": Layout(recipe=True),
    "report": Layout(),
}
"""The sections that hold rows, one for each stage, in the order of the pipeline."""

HARDENING = ("adversarial_train", "train_online")
"""The sections whose rows are robust networks."""
SETS = {"generate": "bank", "attack": "attack"}
"""The sections whose rows are adversarial sets, and the key that names what made one."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(below, value) if both else value  # type: ignore[arg-type]
    return merged


@dataclass(frozen=True)
class Row:
    """One run of a stage.

    Attributes:
        stage: the section it stands in.
        name: its key there.
        about: what it says of itself: the subject, the data set, and its other names and files.
        settings: the recipe's, with its own laid over them.
    """

    stage: str
    name: str
    about: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Its dotted place in the file."""
        return f"{self.stage}.{self.name}"

    @property
    def subject(self) -> str:
        """Whose it is; of ``prepare``, the data set."""
        return self.about.get("subject", self.name)

    @property
    def files(self) -> list[str]:
        """What it depends on besides what every row of its section does."""
        return [self.about[key] for key in LAYOUTS[self.stage].files]

    @property
    def dataset(self) -> str:
        """The data set that it reads, or, of ``prepare``, makes."""
        return self.about.get("dataset", self.name)

    @property
    def whole(self) -> dict[str, Any]:
        """All that it says, with what it takes over."""
        return {**self.about, **self.settings}


def row(tree: Mapping[str, Any], stage: str, *names: str) -> Row:
    """The row of ``stage`` with these names, such as a subject's and a bank's.

    Raises:
        ParamsError: there is none, it is no mapping, it lacks a key that belongs to every row of its
            section, or its recipe is not there.
    """
    layout, name = LAYOUTS[stage], "-".join(names)
    own = section(tree, stage, name)
    if not isinstance(own, Mapping):
        keys = ", ".join(layout.keys)
        raise ParamsError(
            f"params.yaml: {stage}.{name} must be a mapping of {keys} and settings{found_value(own)}"
        )
    for key in layout.keys:
        if not isinstance(own.get(key), str):
            raise ParamsError(
                f"params.yaml: {stage}.{name}.{key} must be text{found_value(own.get(key))}"
            )
    recipe = section(tree, RECIPES, own[RECIPE]) if layout.recipe else {}
    if not isinstance(recipe, Mapping):
        raise ParamsError(
            f"params.yaml: {RECIPES}.{own[RECIPE]} must be a mapping of settings{found_value(recipe)}"
        )
    return Row(
        stage,
        name,
        {key: own[key] for key in layout.keys},
        overlay(recipe, {key: value for key, value in own.items() if key not in layout.keys}),
    )


def rows(tree: Mapping[str, Any], stage: str, subject: str | None = None) -> Iterator[Row]:
    """The rows of ``stage``, in their order; those of one subject where it is named.

    Raises:
        ParamsError: as :func:`row`.
    """
    for name in section(tree, stage) or {}:
        found = row(tree, stage, str(name))
        if subject in (None, found.subject):
            yield found


def networks(tree: Mapping[str, Any], subject: str) -> list[str]:
    """The networks of a subject by their names in the tables: ``target`` and the robust ones."""
    return [
        "target",
        *(r.about["network"] for stage in HARDENING for r in rows(tree, stage, subject)),
    ]


def adversarial_sets(tree: Mapping[str, Any], subject: str, split: str = "test") -> list[str]:
    """The adversarial sets of a subject's split that were made against its target, by what made them.

    A generator that learned together with a network is left out: that network was its target.
    """
    banks = {r.about["bank"] for r in rows(tree, "train_dgn", subject)}
    return [
        r.about[key]
        for stage, key in SETS.items()
        for r in rows(tree, stage, subject)
        if r.about["split"] == split and (stage != "generate" or r.about["bank"] in banks)
    ]
