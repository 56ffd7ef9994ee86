"""New rows as they are drawn up: complete, and found wrong before any file changes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError, ParamsError, UnknownNameError
from deepcustom.base.params import section
from deepcustom.base.rows import LAYOUTS, RECIPE, SUBJECTS, Row, row
from deepcustom.pipeline.check_files import extra_code, wanted_files
from deepcustom.pipeline.code import PREFIX
from deepcustom.pipeline.code_lock import LOCK, has_sources

Tree = dict[str, Any]


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
            InputError: its section has a row of that name.
        """
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
    ) -> None:
        """Draw up a row of a stage.

        Args:
            stage: the section.
            names: key → value for each part of the row's name, the subject first.
            sibling: the row that it resembles.
            settings: what the row itself sets, on top of its recipe.
            recipe: the recipe's name; None takes the sibling's.
            twin: as in :class:`NewRow`.

        Raises:
            InputError: the name is taken, or there is neither a recipe nor a sibling.
            ParamsError: the settings name a loss or a set that does not exist.
        """
        layout = LAYOUTS[stage]
        subject = names.get("subject", next(iter(names.values())))
        name = "-".join(names.values())
        dataset = section(self.tree, SUBJECTS, subject)["dataset"]
        about = {**({} if len(layout.names) == 0 else names), "dataset": dataset}
        if layout.recipe:
            recipe = recipe or (sibling.about[RECIPE] if sibling else None)
            if recipe is None:
                known = ", ".join(section(self.tree, "recipes"))
                raise InputError(
                    f"no row of {stage} is like {name}: name a recipe with --recipe: {known}"
                )
            about[RECIPE] = recipe
        whole = {key: about[key] for key in layout.keys if key in about} | dict(settings)
        whole |= dict.fromkeys(layout.files, "")
        if layout.files:
            trial = {**self.tree, stage: {**section(self.tree, stage), name: whole}}
            whole |= self._files(row(trial, stage, *names.values()))
        self.put(NewRow(stage, name, whole, sibling.name if sibling else None, twin))

    def _files(self, one: Row) -> dict[str, str]:
        """The files that a row has to name as ``code`` and ``reads``."""
        with contextlib.chdir(self.root):
            wanted = {key: path for key, (path, _) in self._wanted(one).items()}
            if "reads" not in wanted and "reads" in LAYOUTS[one.stage].files:
                extra = extra_code(self.root, one.stage, wanted["code"])
                wanted["reads"] = next(iter(extra), wanted["code"])
        locked = not has_sources(self.root)
        return {k: LOCK if locked and v.startswith(PREFIX) else v for k, v in wanted.items()}

    def _wanted(self, one: Row) -> dict[str, tuple[str, str]]:
        try:
            return wanted_files(self.root, self.tree, one)
        except UnknownNameError as error:
            raise ParamsError(f"{one.place}: {error}") from None
