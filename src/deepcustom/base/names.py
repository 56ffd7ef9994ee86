"""The one place that turns ``package.module:Class`` into an object."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from deepcustom.base.errors import UserError, one_line


def load_object(name: str, what: str, error: type[UserError]) -> Any:
    """The object that ``name`` refers to; the current folder is searched too, for the user's own modules.

    Args:
        name: ``package.module:Class``; a function or any other object is found as well.
        what: what it should be, for messages, such as ``loss``.
        error: the class of the error to raise.

    Raises:
        UserError: of class ``error``, in one line: the form is wrong, importing fails, or the module lacks
            the object.
    """
    module_name, _, object_name = name.partition(":")
    if not module_name or not object_name:
        raise error(f"{what} {name!r} must have the form package.module:Class")
    here = str(Path.cwd())
    if module_name.split(".")[0] != __name__.split(".")[0] and here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as problem:  # the user's own file may raise anything
        why = one_line(problem)
        raise error(f"{what} {name!r}: importing {module_name!r} failed: {why}") from problem
    if not hasattr(module, object_name):
        own = [key for key, one in vars(module).items() if _is_of(one, module_name)]
        there = ", ".join(own) or "none"
        raise error(f"{what} {name!r}: {module_name} has no class {object_name!r}; it has: {there}")
    return getattr(module, object_name)


def _is_of(one: Any, module_name: str) -> bool:
    """Whether a class or function was written in a module, not imported there."""
    return getattr(one, "__module__", None) == module_name and hasattr(one, "__qualname__")
