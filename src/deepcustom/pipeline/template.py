"""Writes ``dvc.yaml``: the package's template, filled with the code that each stage depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file
from deepcustom.base.once import read_yaml
from deepcustom.base.rows import START
from deepcustom.pipeline import code_lock
from deepcustom.pipeline.code import OWN, PREFIX, closure
from deepcustom.pipeline.code_lock import LOCK, has_sources

TEMPLATE = Path(__file__).with_name("dvc_template.yaml")
CHARTS = Path(__file__).with_name("plots")
"""Vega-Lite charts, which ``dvc.yaml`` names; a project has copies where DVC looks for them."""
CHARTS_HERE = ".dvc/plots"
MARK = "      - CODE\n"
OWN_MARK = re.compile(r"^      - OWN (\w+)\n", re.MULTILINE)
"""Stands for a folder of the user's own code, if the project has it."""
START_MARK, START_DEP = "      - START\n", f"${{item.{START}}}"
"""Stands for the weights that a row starts from, if the rows of the section name them."""


def render(root: Path) -> str:
    """The ``dvc.yaml`` of the project in ``root``.

    If the package's sources lie in the project, each stage depends on those that it runs. Otherwise it
    depends on its own line of ``deepcustom.lock``, which holds their digest. A folder of the user's own code,
    such as ``own/nets``, is a dependency where the project has it, and so are the weights that hardened
    networks start from, where their rows in ``params.yaml`` name them.
    """
    sources = has_sources(root)
    stages = (_with_start(_with_own(stage, root), root) for stage in _stages().values())
    return "\n\n".join(_with_sources(s, root) if sources else _with_lock(s) for s in stages)


def write_charts(root: Path) -> None:
    """Put the charts that ``dvc.yaml`` names where DVC looks for them."""
    for chart in sorted(CHARTS.glob("*.json")):
        replace_file(root / CHARTS_HERE / chart.name, chart.read_bytes())


def own_code(root: Path, stage: str) -> list[str]:
    """The folders of the user's own code that a stage depends on, among those that the project has."""
    text = _stages().get(stage, "")
    return [path for name in OWN_MARK.findall(text) if (root / (path := f"{OWN}/{name}")).is_dir()]


def upgrade(root: Path) -> list[str]:
    """Write ``dvc.yaml`` anew, and ``deepcustom.lock`` in a project without the package's sources.

    Returns:
        The stages whose code differs from what the files said before.
    """
    before = {name: _listed_before(root, name) for name in _names()}
    changed = [] if has_sources(root) else code_lock.update_lock(root)
    replace_file(root / "dvc.yaml", render(root).encode())
    write_charts(root)
    differing = [name for name in _names() if before.get(name) != _dependencies(root, name)]
    return list(dict.fromkeys([*changed, *differing]))


def listed(root: Path, stage: str, prefix: str = PREFIX) -> list[str]:
    """The paths below ``prefix`` that the project's ``dvc.yaml`` lists for a stage.

    By default they are the package's files, of which there are none in a project without sources.

    Raises:
        InputError: the file cannot be read, or has no such stage.
    """
    try:
        tree = read_yaml((root / "dvc.yaml").read_bytes())
        entry = tree["stages"][stage]
        deps = entry.get("do", entry)["deps"]
        return [dep for dep in deps if isinstance(dep, str) and dep.startswith(prefix)]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"dvc.yaml has no stage {stage} with dependencies: `deepcustom upgrade` writes it anew"
        ) from None


def _dependencies(root: Path, stage: str) -> list[str]:
    """The code that ``dvc.yaml`` lists for a stage: the package's, and the user's own."""
    return [*listed(root, stage), *listed(root, stage, f"{OWN}/")]


def _listed_before(root: Path, stage: str) -> list[str] | None:
    """As :func:`_dependencies`, but None where that fails, since the file is about to be replaced."""
    try:
        return _dependencies(root, stage)
    except InputError:
        return None


def _names() -> list[str]:
    return list(_stages())


def _stages() -> dict[str, str]:
    """Stage → its part of the template."""
    return {_name(text): text for text in TEMPLATE.read_text().split("\n\n")}


def _with_own(stage: str, root: Path) -> str:
    there = own_code(root, _name(stage))
    lines = {path: f"      - {path}\n" for path in there}
    return OWN_MARK.sub(lambda found: lines.get(f"{OWN}/{found[1]}", ""), stage)


def _with_start(stage: str, root: Path) -> str:
    line = f"      - {START_DEP}\n" if _starts(root, _name(stage)) else ""
    return stage.replace(START_MARK, line)


def _starts(root: Path, stage: str) -> bool:
    """Whether a row of a stage names the weights that it starts from."""
    try:
        below = read_yaml((root / "params.yaml").read_bytes())[stage]
        return any(START in row for row in below.values())
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return False  # no settings yet, or such as the check of them refuses


def _with_sources(stage: str, root: Path) -> str:
    files = closure(_name(stage), root / PREFIX)
    return stage.replace(MARK, "".join(f"      - {PREFIX}{path}\n" for path in files))


def _with_lock(stage: str) -> str:
    line = f"      - {LOCK}:\n        - stages.{_name(stage)}\n"
    return stage.replace(f"      deps:\n{MARK}", f"{line}      deps:\n")


def _name(stage: str) -> str:
    return next(_keys(stage))


def _keys(stage: str) -> Iterator[str]:
    """The keys that two spaces indent: the stage's name."""
    for line in stage.splitlines():
        if line.startswith("  ") and line[2] != " ":
            yield line.strip().removesuffix(":")
