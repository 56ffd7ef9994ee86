"""What counts as the same code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from same_code import at, bare, here, unlike

CODE = '''"""What it is."""

LIMIT = 3
"""What it means."""


def check(x):
    """Whether it is."""
    if x > LIMIT:  # too much
        raise ValueError(f"{x} is too much")
    return x
'''

PROSE = {
    "a comment": CODE.replace("# too much", "# more than that"),
    "a docstring": CODE.replace("Whether it is.", "Check it."),
    "text below a name": CODE.replace("What it means.", "How much."),
    "the text of an error": CODE.replace("is too much", "must be 3 or less"),
    "a line more": CODE.replace("    return x", "\n    return x"),
}
OTHER = {
    "a number": CODE.replace("LIMIT = 3", "LIMIT = 4"),
    "a comparison": CODE.replace("x > LIMIT", "x >= LIMIT"),
    "the class of an error": CODE.replace("ValueError", "TypeError"),
    "text that is used": CODE.replace("return x", 'return "x"'),
    "a name": CODE.replace("def check", "def test"),
}


@pytest.mark.parametrize("what", PROSE)
def test_what_only_people_read_is_no_code(what: str) -> None:
    assert PROSE[what] != CODE
    assert bare(PROSE[what]) == bare(CODE)


@pytest.mark.parametrize("what", OTHER)
def test_everything_else_is_code(what: str) -> None:
    assert OTHER[what] != CODE
    assert bare(OTHER[what]) != bare(CODE)


def test_a_module_on_one_side_alone_is_other_code() -> None:
    assert unlike({"a.py": CODE, "b.py": ""}, {"a.py": PROSE["a comment"], "c.py": ""}) == [
        "b.py",
        "c.py",
    ]


def test_a_commit_and_the_working_tree(tmp_path: Path) -> None:
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/a.py").write_text(CODE)
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], [*own, "commit", "--quiet", "-m", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert at("HEAD", tmp_path) == here(tmp_path) == {"src/deep/a.py": CODE}
    (tmp_path / "src/deep/a.py").write_text(OTHER["a number"])
    assert unlike(at("HEAD", tmp_path), here(tmp_path)) == ["src/deep/a.py"]
    with pytest.raises(SystemExit):
        at("nowhere", tmp_path)
