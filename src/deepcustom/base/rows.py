"""How ``params.yaml`` is laid out: its sections, the rows in them, and the recipes that rows share.

One row is one run of a stage: DVC runs the row ``train_dgn.mnist-lrp`` as ``train_dgn@mnist-lrp``. A row's
name is built from some of its keys, such as subject and bank. Its settings are those of its recipe,
overridden by its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deepcustom.base.errors import ParamsError
from deepcustom.base.params import found_value, section

TRAINING = ("train_target", "train_dgn", "adversarial_train", "train_online")
"""The stages that train the published networks."""
RECIPES, SUBJECTS, RECIPE = "recipes", "subjects", "recipe"
START = "start"
"""The key of a hardened network's row that names the weights it starts from."""


@dataclass(frozen=True)
class Layout:
    """Which keys the rows of a section have besides their settings.

    Attributes:
        names: the keys whose values, joined by ``-``, form the row's name; empty where the name is the
            subject or the data set alone.
        recipe: whether a row names a recipe.
        files: the keys that name files on which the row depends.
        optional: keys that name such files too, in all rows of a section or in none.
        dataset: whether a row names the data set of its subject.
    """

    names: tuple[str, ...] = ()
    recipe: bool = False
    files: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    dataset: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that are not settings and that every row has."""
        recipe = (RECIPE,) if self.recipe else ()
        dataset = ("dataset",) if self.dataset else ()
        return (*self.names[:1], *dataset, *self.names[1:], *recipe, *self.files)

    @property
    def whole(self) -> tuple[str, ...]:
        """All keys that are not settings."""
        return (*self.keys, *self.optional)


LAYOUTS = {
    "prepare": Layout(files=("reads",), dataset=False),
    "train_target": Layout(files=("reads",)),
    "relevance": Layout(),
    "suspiciousness": Layout(),
    "train_dgn": Layout(("subject", "bank"), recipe=True, files=("code", "reads")),
    "generate": Layout(("subject", "bank", "split"), recipe=True),
    "attack": Layout(("subject", "attack", "split"), recipe=True),
    "adversarial_train": Layout(
        ("subject", "network"), recipe=True, files=("code", "reads"), optional=(START,)
    ),
    "train_online": Layout(
        ("subject", "network"), recipe=True, files=("code", "reads"), optional=(START,)
    ),
    "evaluate": Layout(recipe=True),
    "report": Layout(),
    "gallery": Layout(),
    "page": Layout(dataset=False),
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
        about: its keys that are not settings: the subject, the data set, and other names and files.
        settings: the recipe's, overridden by its own.
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
        """The subject that it belongs to; for ``prepare``, the data set."""
        return self.about.get("subject", self.name)

    @property
    def files(self) -> list[str]:
        """The files on which it depends beyond those that all rows of its section share."""
        layout = LAYOUTS[self.stage]
        return [self.about[key] for key in (*layout.files, *layout.optional) if key in self.about]

    @property
    def dataset(self) -> str:
        """The data set that it reads; for ``prepare``, the one that it makes."""
        return self.about.get("dataset", self.name)

    @property
    def whole(self) -> dict[str, Any]:
        """All its keys, with the settings from its recipe."""
        return {**self.about, **self.settings}


def row(tree: Mapping[str, Any], stage: str, *names: str) -> Row:
    """The row of ``stage`` with these names, such as a subject's and a bank's.

    Raises:
        ParamsError: the row is missing or is not a mapping, it lacks a key that every row of its section
            has, or its recipe is missing or is not a mapping.
    """
    layout, name = LAYOUTS[stage], "-".join(names)
    own = section(tree, stage, name)
    if not isinstance(own, Mapping):
        keys = ", ".join(layout.keys)
        raise ParamsError(
            f"params.yaml: {stage}.{name} must be a mapping of {keys} and settings{found_value(own)}"
        )
    named = [key for key in layout.whole if key in own or key in layout.keys]
    for key in named:
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
        {key: own[key] for key in named},
        overlay(recipe, {key: value for key, value in own.items() if key not in named}),
    )


def rows(tree: Mapping[str, Any], stage: str, subject: str | None = None) -> Iterator[Row]:
    """The rows of ``stage`` in file order; with ``subject``, only those of that subject.

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
    """The names of the adversarial sets of a subject's split that were made against its target network.

    A set's name is that of its bank or attack. Sets by a generator that learned together with a network are
    left out: they were made against that network.
    """
    banks = {r.about["bank"] for r in rows(tree, "train_dgn", subject)}
    return [
        r.about[key]
        for stage, key in SETS.items()
        for r in rows(tree, stage, subject)
        if r.about["split"] == split and (stage != "generate" or r.about["bank"] in banks)
    ]
