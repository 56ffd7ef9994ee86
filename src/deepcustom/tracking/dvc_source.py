"""Where a data set in MLflow comes from: a path of a DVC project, and the md5 that DVC gives it.

MLflow finds this class through the entry point ``mlflow.dataset_source`` of the package, so plain
``mlflow.data.get_source(...)`` gives one where the package is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import dvc_md5

PATIENCE = 600  # seconds that `dvc get` may take


class DvcDatasetSource(DatasetSource):
    """A file or folder that DVC knows.

    Attributes:
        path: relative to the project.
        md5: as DVC computes it; it alone says which data are meant.
        stage: what makes it, as ``dvc repro`` takes it; empty where no stage does.
        repo: where git cloned the project from, without user and password; None where that is not known.
        rev: the commit of the run that read it; None without git.
        within: the project's folder in the repository; empty for the top.
    """

    def __init__(
        self,
        path: str,
        md5: str,
        stage: str = "",
        repo: str | None = None,
        rev: str | None = None,
        within: str = "",
    ) -> None:
        """Nothing is read."""
        self.path, self.md5, self.stage = path, md5, stage
        self.repo, self.rev, self.within = repo, rev, within

    def load(self, dst_path: str | None = None) -> str:
        """The folder or file, with the bytes that the run read.

        It is looked for in the project around the current folder. If it is not there, ``dvc get`` fetches it
        from the repository.

        Args:
            dst_path: a folder to fetch it to; None: a new temporary one.

        Returns:
            Where it lies.

        Raises:
            InputError: in one line: it is in neither place, and what to do.
        """
        here = Path.cwd()
        for folder in (here, *here.parents):
            place = folder / self.path
            if place.exists() and dvc_md5(place) == self.md5:
                return str(place)
        why = "no repository is known"
        if self.repo:
            place = Path(dst_path or tempfile.mkdtemp()) / Path(self.path).name
            why = self._fetch(place)
            if not why:
                return str(place)
        clone = f"in a clone of {self.repo or 'the project'}" + f" at {self.rev}" * bool(self.rev)
        make = f", or `dvc repro {self.stage}`, which makes it" if self.stage else ""
        raise InputError(
            f"{self.path} with md5 {self.md5} is not in this folder's project, and not to be fetched "
            f"({why}): {clone}, run `dvc pull {self.path}`{make}, and call load() there"
        )

    def _fetch(self, place: Path) -> str:
        """Fetch with ``dvc get``; why that failed, or nothing."""
        inner = f"{self.within}{self.path}"
        words = ["get", str(self.repo), inner, "-o", str(place)]
        words += ["--rev", self.rev] if self.rev else []
        quiet = {"GIT_TERMINAL_PROMPT": "0", "DVC_NO_ANALYTICS": "1"}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "dvc", *words],
                env={**os.environ, **quiet},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"dvc get: {type(error).__name__}"
        if done.returncode or not place.exists():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            return " ".join(["dvc get:", *lines[:1]]).removesuffix(":")[:200]
        return "" if dvc_md5(place) == self.md5 else "dvc get: that commit has other data there"

    def to_dict(self) -> dict[str, Any]:
        """All attributes that say something."""
        told = {
            "path": self.path,
            "md5": self.md5,
            "stage": self.stage,
            "repo": self.repo,
            "rev": self.rev,
            "within": self.within,
        }
        return {name: value for name, value in told.items() if value}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> DvcDatasetSource:
        """What :meth:`to_dict` gave; what a later version added is passed over."""
        known = ("path", "md5", "stage", "repo", "rev", "within")
        return cls(**{name: source_dict[name] for name in known if name in source_dict})

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcDatasetSource:
        raise NotImplementedError("a DVC source is made from its parts")
