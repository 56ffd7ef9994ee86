"""The record that a stage leaves in ``run.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file
from deepcustom.base.once import read_json

RUN_FILE = "run.json"


def _relative(path: str) -> str:
    pure = PurePosixPath(path)
    outside = pure.is_absolute() or ".." in pure.parts or PureWindowsPath(path).drive
    if outside or "\\" in path or path == "." or str(pure) != path:
        raise ValueError(f"{path!r} is not a plain relative path with forward slashes")
    return path


def _plain_name(name: str) -> str:
    if name == "" or name.startswith(".") or re.search(r"[/\\:\x00-\x1f]", name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


RelativePath = Annotated[str, AfterValidator(_relative)]
FileName = Annotated[str, AfterValidator(_plain_name)]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class RunRecord(BaseModel):
    """One execution of one stage: the content of ``run.json``.

    Attributes:
        run_key: Made anew at each execution (a uuid4 in hex); tells MLflow's runs apart.
        repro: Which ``dvc repro`` started the stage; None if it was run by hand.
        dvc_exp: The name of DVC's experiment that ran the stage; ``dvc_exp_baseline``, the commit that it
            began from. None for any other run, and the latter in old records.
        item: What the stage ran for, such as ``mnist-lrp``; empty for a stage that runs once.
        metrics: Final values.
        history: Curves; the value at position i belongs to step i + 1.
        inputs: Path from the repository's root → md5 as DVC computes it; ``outputs`` likewise.
        code: Digest of the code that ran (:func:`deepcustom.pipeline.code.code_digest`); None in old records.
        seconds: Wall-clock time from ``started``.
        timings: Part of the work → the time it took, in seconds.
        figures: Names of image files beside ``run.json``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    run_key: Key
    stage: Annotated[str, Field(min_length=1)]
    item: str
    dataset: str
    dvc_stage: str | None
    dvc_exp: str | None
    dvc_exp_baseline: str | None = None
    repro: Key | None = None
    params: dict[str, Any]
    metrics: dict[str, float]
    history: dict[str, list[float]]
    inputs: dict[RelativePath, Md5]
    outputs: dict[RelativePath, Md5]
    git_commit: str | None
    git_dirty: bool | None
    code: Sha256 | None = None
    started: AwareDatetime
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    timings: dict[str, float] = {}
    machine: dict[str, str]
    packages: dict[str, str]
    figures: list[FileName]

    @property
    def name(self) -> str:
        """Name of the DVC stage and of the MLflow run, such as ``train_dgn@mnist-lrp``."""
        return f"{self.stage}@{self.item}" if self.item else self.stage

    def write(self, folder: Path) -> None:
        """Writes ``folder/run.json`` whole or not at all; keys are sorted."""
        text = json.dumps(json.loads(self.model_dump_json()), indent=2, sort_keys=True) + "\n"
        replace_file(folder / RUN_FILE, text.encode())

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Reads ``folder/run.json``.

        Raises:
            InputError: The file is missing, or is not a run record.
        """
        path = folder / RUN_FILE
        try:
            content = path.read_bytes()
            found = cls.model_validate_json(content)
            read_json(content)  # which refuses a key that stands twice
            return found
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f"{part}: " for part in first["loc"])
            message = " ".join(f"{path}: not a run record: {where}{first['msg']}".split())
            raise InputError(message) from error
        except ValueError as error:
            raise InputError(f"{path}: not a run record: {error}") from error
