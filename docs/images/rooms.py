"""Draws the rooms of the code and what each imports: ``python docs/images/rooms.py`` (``make rooms``).

The layers come from the contract in ``pyproject.toml``, the arrows from the imports in the sources. The
picture and a table stand between two marks in ``CONTRIBUTING.md``, which this writes.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"


def layers() -> list[list[str]]:
    """The rooms from the door down; those of one layer know nothing of each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return [re.findall(r"deepcustom\.(\w+)", layer) for layer in contracts[0]["layers"]]


def arrows() -> networkx.DiGraph:
    """Room → each room that one of its modules imports."""
    found = networkx.DiGraph()
    rooms = [room for layer in layers() for room in layer]
    graph = grimp.build_graph("deepcustom", cache_dir=None)
    for one in rooms:
        for other in rooms:
            names = {"importer": f"deepcustom.{one}", "imported": f"deepcustom.{other}"}
            if one != other and graph.direct_import_exists(**names, as_packages=True):
                found.add_edge(one, other)
    return found


def drawn() -> str:
    """The picture, less the arrows that a longer way implies, and the table."""
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {a} --> {b}" for a, b in sorted(networkx.transitive_reduction(arrows()).edges)]
    lines += ["```", "", "| room | what lives there | may import |", "| --- | --- | --- |"]
    below = layers()
    while below:
        layer, *below = below
        may = (
            f"{' and '.join(f'`{name}`' for name in below[0])}, and all below" if below else "none"
        )
        lines += [f"| `{room}` | {what(room)} | {may} |" for room in layer]
    return "\n".join(lines) + "\n"


def what(room: str) -> str:
    """The sentence at the top of a room's face."""
    tree = ast.parse((ROOT / "src/deepcustom" / room / "__init__.py").read_text())
    sentence = (ast.get_docstring(tree) or "").split("\n\n")[0]
    return " ".join(sentence.split()).rstrip(".").replace("``", "`")


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + drawn() + END + after)


if __name__ == "__main__":
    main()
