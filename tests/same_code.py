"""Whether the code of a commit and of the working tree is the same but for what only people read.

Comments, docstrings and the texts of errors decide no output. Everything else is compared as Python's own
syntax trees. See "Proof by bytes" in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = "src"


class _Bare(ast.NodeTransformer):
    """A syntax tree without docstrings, and without what errors say."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)


def bare(source: str) -> str:
    """What of a module may decide an output, in one line."""
    return ast.dump(_Bare().visit(ast.parse(source)))


def unlike(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The modules, path → source, whose code differs, or that are on one side alone."""
    return sorted(
        path
        for path in {*before, *after}
        if path not in before or path not in after or bare(before[path]) != bare(after[path])
    )


def at(commit: str, root: Path = ROOT) -> dict[str, str]:
    """Path → source of every module of a commit.

    Raises:
        SystemExit: there is no such commit.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        if done.returncode:
            print(f"error: {done.stderr.strip()}", file=sys.stderr)
            raise SystemExit(2)
        return done.stdout

    names = git("ls-tree", "-r", "--name-only", commit, "--", CODE).split()
    return {name: git("show", f"{commit}:{name}") for name in names if name.endswith(".py")}


def here(root: Path = ROOT) -> dict[str, str]:
    """Path → source of every module of the working tree."""
    return {p.relative_to(root).as_posix(): p.read_text() for p in (root / CODE).rglob("*.py")}


def main(commit: str, *only: str) -> int:
    """Say which modules differ in code; 1 where one does."""
    before, after = at(commit), here()
    if only:
        before, after = ({p: s for p, s in some.items() if p in only} for some in (before, after))
    found = unlike(before, after)
    for path in found:
        print(f"other code: {path}")
    print(
        f"{len({*before, *after}) - len(found)} modules have the same code, {len(found)} have not"
    )
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
