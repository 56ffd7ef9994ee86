"""``dvc.yaml``: one template in the package, filled with what says which code each stage runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepcustom.pipeline.code import PREFIX, closure

TEMPLATE = Path(__file__).with_name("dvc_template.yaml")
MARK = "      - CODE\n"
LOCK = "deepcustom.lock"


def render(root: Path) -> str:
    """The ``dvc.yaml`` of the project in ``root``.

    Where the package's sources lie in the project, each stage depends on those that it runs; elsewhere on
    its own line of ``deepcustom.lock``, which holds their digest.
    """
    sources = (root / PREFIX).is_dir()
    stages = TEMPLATE.read_text().split("\n\n")
    return "\n\n".join(_with_sources(s, root) if sources else _with_lock(s) for s in stages)


def _with_sources(stage: str, root: Path) -> str:
    files = closure(_name(stage), root / PREFIX)
    return stage.replace(MARK, "".join(f"      - {PREFIX}{path}\n" for path in files))


def _with_lock(stage: str) -> str:
    line = f"      - {LOCK}:\n        - stages.{_name(stage)}\n"
    return stage.replace(f"      deps:\n{MARK}", f"{line}      deps:\n")


def _name(stage: str) -> str:
    return next(_keys(stage))


def _keys(stage: str) -> Iterator[str]:
    """What stands two blanks in: the stage's name."""
    for line in stage.splitlines():
        if line.startswith("  ") and line[2] != " ":
            yield line.strip().removesuffix(":")
