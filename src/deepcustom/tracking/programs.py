"""Networks as MLflow models: a folder with an exported program, which MLflow loads by itself.

torch exports the network (format pt2), and the archive is written without a pickle. Whoever loads it needs
torch and MLflow, and not this package.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.hashes import file_md5

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from torch import Tensor, nn

    from deepcustom.tracking.rebuilt import Rebuilt
    from deepcustom.tracking.record import RunRecord

PROGRAM = "data/model.pt2"
DATA = "data"
"""The folder of the program; its name is what MLflow's own loader looks for."""
LOADER = "generators_pyfunc"
MOST_GENERATORS = 32
"""A bank of more is not exported: each generator takes seconds, and the program grows with each."""
EXAMPLE = 3  # images that a program is exported on: torch takes 0 and 1 for special
TRIED = (1, 2, 5)  # images that it is tried on before it is sent
CLOSE = 1e-5  # what answers may differ by, absolute, and ten times as much relative


class AbsentError(InputError):
    """The file that a training left is not in the project, or another one is."""


def write_program(record: RunRecord, path: str, root: Path, folder: Path, **ids: Any) -> None:
    """Write what MLflow loads a network from.

    Args:
        record: of the training that made the network.
        path: the network's file, one of the record's outputs. Its bytes must have the recorded md5.
        root: the project's folder.
        folder: a new one.
        ids: as for :func:`write_model`.

    Raises:
        AbsentError: the file is missing, or has another md5.
        InputError: in one line: the network cannot be put together or exported.
    """
    if not (root / path).is_file() or file_md5(root / path) != record.outputs[path]:
        raise AbsentError(f"{path} is not here as the run left it")
    from deepcustom.tracking.rebuilt import rebuilt

    about = {"dvc.md5": record.outputs[path], "dvc.path": path}
    try:
        with contextlib.chdir(root):  # where the user's own classes are looked for
            write_model(rebuilt(record, path, root), folder, about, **ids)
    except DeepCustomError:
        raise
    except Exception as error:  # the user's own class may raise anything
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"it cannot be exported: {why[:200]}") from error


def write_model(rebuilt: Rebuilt, folder: Path, about: Mapping[str, str], **ids: Any) -> None:
    """Write the folder that MLflow loads.

    Args:
        rebuilt: the network.
        folder: a new one.
        about: goes into the file ``MLmodel`` as its metadata.
        ids: ``model_id`` and ``run_id`` of MLflow's.

    Raises:
        InputError: in one line: torch cannot export the network, or the program answers otherwise.
    """
    from mlflow import pyfunc
    from mlflow.models import Model
    from torch import __version__ as torch_version

    count = rebuilt.classes if rebuilt.told else 0
    if count > MOST_GENERATORS and len(rebuilt.ways) > 1:
        raise InputError(f"a bank of {count} generators, more than {MOST_GENERATORS}")
    (folder / DATA).mkdir(parents=True)
    _export(rebuilt, folder / PROGRAM)
    model = Model(signature=_signature(rebuilt), metadata=dict(about), **ids)
    model.saved_input_example_info = _write_example(rebuilt, folder)
    _write_environment(folder)
    model.add_flavor("pytorch", model_data=DATA, pytorch_version=str(torch_version), code=None)
    loader, more = "mlflow.pytorch", dict[str, Any](model_config={"device": "cpu"})
    if rebuilt.told:
        loader, more = LOADER, {"code": "code"}
        (folder / "code").mkdir()
        shutil.copy(Path(__file__).with_name(f"{LOADER}.py"), folder / "code")
    pyfunc.add_to_model(
        model, loader_module=loader, data=DATA, python_env="python_env.yaml", **more
    )
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*"))
    model.save(str(folder / "MLmodel"))


def _export(rebuilt: Rebuilt, path: Path) -> None:
    """Write the first of the network's ways that torch exports and that answers as the network does."""
    import torch

    faults = []
    for net in rebuilt.ways:
        for strict in (False, True):
            try:
                with _hushed(), torch.no_grad():
                    _write(net, _images(rebuilt, EXAMPLE), path, strict)
                    program = torch.export.load(path).module()
                    alike = all(_alike(program, rebuilt, n) for n in TRIED)
            except (
                Exception
            ) as error:  # torch raises errors of many kinds, and so does a user's class
                faults.append(" ".join(f"{type(error).__name__}: {error}".split()))
                continue
            if alike:
                return
            faults.append("the exported program answers otherwise")
    raise InputError(f"torch cannot export it: {faults[0][:200]}")


def _write(net: nn.Module, given: tuple[Tensor, ...], path: Path, strict: bool) -> None:
    """Export for any number of images, without the example: torch would write it as a pickle."""
    import torch

    any_number = {0: torch.export.Dim("n", min=1)}
    shapes = tuple(any_number for _ in given)
    program = torch.export.export(net, given, dynamic_shapes=shapes, strict=strict)
    program._example_inputs = None
    torch.export.save(program, path)


def _alike(program: nn.Module, rebuilt: Rebuilt, n: int) -> bool:
    import torch

    given = _images(rebuilt, n)
    return torch.allclose(program(*given), rebuilt.answer(*given).float(), 10 * CLOSE, CLOSE)


def _images(rebuilt: Rebuilt, n: int) -> tuple[Tensor, ...]:
    """Images of noise, and labels if the network takes any; no global random number is drawn."""
    import torch

    dice = torch.Generator().manual_seed(n)
    x = torch.rand((n, *rebuilt.shape), generator=dice)
    y = torch.randint(rebuilt.classes, (n,), generator=dice)
    return (x, y) if rebuilt.told else (x,)


def _signature(rebuilt: Rebuilt) -> ModelSignature:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    pixels, whole = np.dtype(np.float32), (-1, *rebuilt.shape)
    if not rebuilt.told:
        logits = TensorSpec(pixels, (-1, rebuilt.classes))
        return ModelSignature(Schema([TensorSpec(pixels, whole)]), Schema([logits]))
    given: list[ColSpec | TensorSpec] = [
        TensorSpec(pixels, whole, "images"),
        TensorSpec(np.dtype(np.int64), (-1,), "labels"),
    ]
    return ModelSignature(Schema(given), Schema([TensorSpec(pixels, whole)]))


def _write_example(rebuilt: Rebuilt, folder: Path) -> dict[str, str]:
    """One grey image, and the label 0, as a request to a served model has them."""
    import numpy as np

    image = np.full((1, *rebuilt.shape), 0.5).tolist()
    example = {"images": image, "labels": [0]} if rebuilt.told else image
    names = "input_example.json", "serving_input_example.json"
    for name, content in zip(names, (example, {"inputs": example}), strict=True):
        (folder / name).write_text(json.dumps(content))
    return {
        "artifact_path": names[0],
        "type": "ndarray",
        "format": "tf-serving",
        "serving_input_path": names[1],
    }


def _write_environment(folder: Path) -> None:
    """What a server needs that makes an environment of its own."""
    from importlib.metadata import version

    pinned = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "numpy", "torch")]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n")
    (folder / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\nbuild_dependencies:\n- pip\n"
        "dependencies:\n- -r requirements.txt\n"
    )


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep back what torch prints where an export fails: whole programs."""
    quiet: Any = io.StringIO()
    before = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
