"""New rows as they are drawn up: complete, and found wrong before any file changes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import InputError, ParamsError, UnknownNameError
from deepcustom.base.params import section
from deepcustom.base.rows import LAYOUTS, NAME, RECIPE, RECIPES, START, SUBJECTS, Row, row
from deepcustom.pipeline.check_files import extra_code, stand_ins, wanted_files
from deepcustom.pipeline.starts import ANEW, named_in, start_of

Tree = dict[str, Any]
NAMED = ("subject", "bank", "attack", "network")
"""The keys of a row whose values are names."""
_NUMBER = re.compile(r"[-+.]?\d[\d_.]*([eE][-+]?\d+)?|0[oxb][\da-fA-F]+")  # in YAML 1.1 or in 1.2


@dataclass(frozen=True)
class NewRow:
    """A row to be added.

    Attributes:
        section: the section of ``params.yaml`` that it goes into.
        name: its key there.
        values: what stands below that key.
        sibling: the name of the row that it resembles; None where there is none.
        twin: whether it took over the sibling's own settings. What a profile says of the sibling then
            holds for it too.
    """

    section: str
    name: str
    values: Mapping[str, Any]
    sibling: str | None = None
    twin: bool = False


@dataclass
class Draft:
    """The settings of a project, with the rows that are to be added.

    Attributes:
        root: the project's folder.
        tree: all of its params, the new rows included.
        new: the new rows, in the order in which they were drawn up.
    """

    root: Path
    tree: Tree
    new: list[NewRow] = field(default_factory=list)

    def put(self, one: NewRow) -> None:
        """Draw up one more row.

        Raises:
            InputError: its section has a row of that name, or YAML does not read the name as text.
        """
        names = [str(one.values[key]) for key in NAMED if key in one.values]
        for name in names if one.section != SUBJECTS else [one.name]:
            word = NAME.fullmatch(name)  # the check of the settings refuses what is none
            if word and (_NUMBER.fullmatch(name) or not isinstance(yaml.safe_load(name), str)):
                raise InputError(f"{name!r} cannot be a name: YAML does not read it as plain text")
        below = section(self.tree, one.section)
        if one.name in below:
            raise InputError(
                f"params.yaml has {one.section}.{one.name} already: choose another name"
            )
        self.tree[one.section] = {**below, one.name: dict(one.values)}
        self.new.append(one)

    def put_run(
        self,
        stage: str,
        names: Mapping[str, str],
        sibling: Row | None,
        settings: Mapping[str, Any],
        recipe: str | None = None,
        *,
        twin: bool = True,
        start: str | None = None,
    ) -> Row:
        """Draw up a row of a stage.

        Args:
            stage: the section.
            names: key → value for each part of the row's name, the subject first.
            sibling: the row that it resembles.
            settings: what the row itself sets, on top of its recipe.
            recipe: the recipe's name; None takes the sibling's.
            twin: as in :class:`NewRow`.
            start: what a hardened network starts from; None: fresh weights.

        Returns:
            The row, with the settings of its recipe.

        Raises:
            InputError: the name is taken, there is neither a recipe nor a sibling, or ``settings`` has a key
                that is no setting.
            ParamsError: the settings name a loss or a set that does not exist.
        """
        layout, name = LAYOUTS[stage], "-".join(names.values())
        for key in layout.whole:
            if key in settings:
                why = "--start sets it" if key == START else "it follows from the rest of the row"
                raise InputError(f"--set {key}: {why}")
        about = {key: names[key] for key in layout.names}
        about["dataset"] = section(self.tree, SUBJECTS, names["subject"])["dataset"]
        if layout.recipe:
            about[RECIPE] = self._recipe(stage, name, sibling, recipe)
        if START in layout.optional and (start or named_in(self.tree, stage)):
            about[START] = start_of(start or ANEW, about["subject"], about["dataset"])
        whole = {key: about[key] for key in layout.whole if key in about} | dict(settings)
        whole |= dict.fromkeys(layout.files, "")
        trial = {**self.tree, stage: {**section(self.tree, stage), name: whole}}
        if layout.files:
            whole |= self._files(row(trial, stage, name))
        self.put(NewRow(stage, name, whole, sibling.name if sibling else None, twin))
        return row(self.tree, stage, name)

    def _recipe(self, stage: str, name: str, sibling: Row | None, recipe: str | None) -> str:
        if recipe is None and sibling is None:
            known = ", ".join(section(self.tree, RECIPES))
            raise InputError(
                f"no row of {stage} resembles {name}: name a recipe with --recipe: {known}"
            )
        return sibling.about[RECIPE] if sibling and recipe is None else str(recipe)

    def _files(self, one: Row) -> dict[str, str]:
        """The files that a row has to name as ``code`` and ``reads``."""
        with contextlib.chdir(self.root):
            wanted = {key: path for key, (path, _) in self._wanted(one).items()}
            if "reads" not in wanted and "reads" in LAYOUTS[one.stage].files:
                extra = extra_code(self.root, one.stage, wanted["code"])
                wanted["reads"] = next(iter(extra), wanted["code"])
        return {k: next(iter(stand_ins(self.root, one, v)), v) for k, v in wanted.items()}

    def _wanted(self, one: Row) -> dict[str, tuple[str, str]]:
        try:
            return wanted_files(self.root, self.tree, one)
        except UnknownNameError as error:
            raise ParamsError(f"{one.place}: {error}") from None
