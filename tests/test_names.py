"""How ``package.module:Class`` becomes an object: the one way for losses, networks and the user's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from deepcustom.base.errors import InputError, LossError
from deepcustom.base.names import load_object

MODULE = """
class Thing: pass
def make(): return 3
nothing = None
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules of the user's, being the current one."""
    (tmp_path / "my_things.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_things", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_users_own_are_found_in_the_current_folder(here: Path) -> None:
    thing = load_object("my_things:Thing", "thing", InputError)
    assert Path(sys.modules["my_things"].__file__ or "") == here / "my_things.py"
    assert thing is sys.modules["my_things"].Thing
    assert load_object("my_things:make", "thing", InputError)() == 3
    assert load_object("my_things:nothing", "thing", InputError) is None


def test_the_packages_own_are_found_without_the_current_folder(here: Path) -> None:
    before = [*sys.path]
    assert load_object("deepcustom.base.errors:InputError", "thing", InputError) is InputError
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "thing '' must have the form package.module:Class"),
        ("my_things", "thing 'my_things' must have the form package.module:Class"),
        (":Thing", "thing ':Thing' must have the form package.module:Class"),
        ("my_things:", "thing 'my_things:' must have the form package.module:Class"),
        (
            "no_such:Thing",
            "thing 'no_such:Thing': importing 'no_such' failed: ModuleNotFoundError: No module named",
        ),
        ("my_broken:Thing", "importing 'my_broken' failed: RuntimeError: two lines"),
        ("..my_things:Thing", "importing '..my_things' failed: TypeError: "),
        ("my_things:Other", "thing 'my_things:Other': my_things has no class 'Other'"),
    ],
)
@pytest.mark.parametrize("error", [InputError, LossError])
def test_what_cannot_be_had_is_one_line(
    here: Path, name: str, message: str, error: type[InputError]
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        load_object(name, "thing", error)
    assert "\n" not in str(caught.value)
