"""A run's account of itself: what it measured and made, in a small committed file for later stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError


def account_json(metrics: Mapping[str, float], outputs: Mapping[str, str]) -> str:
    """A run's account of itself: what it measured, and the hashes of the data and weights that it made.

    It is a list of one, since DVC then takes the file for metrics, which its run cache wants, without a
    column for each of them in `dvc exp show`.
    """
    account = [{"metrics": metrics, "outputs": outputs}]
    return json.dumps(account, indent=1, sort_keys=True, allow_nan=False) + "\n"


def measured(file: Path) -> dict[str, float]:
    """What the run whose account ``file`` is has measured.

    Raises:
        InputError: it is no such file.
    """
    return _account(file)["metrics"]


def outputs_told(file: Path) -> dict[str, str]:
    """Output → hash, as a run's account says; empty where there is none.

    Raises:
        InputError: it is no such file.
    """
    return _account(file)["outputs"] if file.is_file() else {}


def _account(file: Path) -> dict[str, dict[str, Any]]:
    try:
        (account,) = json.loads(file.read_text())
        return {"metrics": dict(account["metrics"]), "outputs": dict(account["outputs"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot read what a run measured and made: {error}") from None
