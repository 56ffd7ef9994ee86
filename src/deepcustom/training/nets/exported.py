"""Exported programs: networks that bring their own architecture, read without a pickle."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError, ParamsError, one_line

SUFFIX = ".pt2"


def trainable(network: str, place: str) -> None:
    """Check that a network can be hardened.

    Args:
        network: what ``params.yaml`` calls it.
        place: the row that is to harden it, such as ``train_online.flowers-online``.

    Raises:
        ParamsError: it is an exported program, whose weights are as they are.
    """
    if network.endswith(SUFFIX):
        raise ParamsError(
            f"params.yaml: {place}: {network} is an exported program, which cannot be trained: take out the "
            "subject's rows of adversarial_train and train_online"
        )


class Exported(nn.Module):
    """An exported program. It stays in the mode that it was exported in, and ``eval()`` cannot change it."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._program = [program]  # in a list, so not a submodule: it refuses eval()
        self.frozen_parameters = sum(one.numel() for one in program.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """The program's output."""
        logits: Tensor = self._program[0](x)
        return logits


# The files that torch.export.save writes for a network of plain tensors. torch.export.load would unpickle
# other files in the archive, and payloads that its lists mark as pickles.
_PLAIN = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id))"
)


def _refuse_pickles(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        odd = [name for name in names if not _PLAIN.fullmatch(name)]
        for name in names:
            if name.endswith("_config.json"):
                payloads = json.loads(archive.read(name))["config"].values()
                odd += [
                    str(one.get("path_name"))
                    for one in payloads
                    if one.get("use_pickle", True)
                    or not re.fullmatch(r"(weight|tensor)_\d+", str(one.get("path_name")))
                ]
    if odd:
        raise ValueError(f"it holds {odd[0]}, which may be a pickle, and pickles are not read")


def load_exported(path: Path) -> Exported:
    """Read an exported program.

    Args:
        path: a file that ``torch.export.save`` wrote, of a network in eval mode and with a dynamic number
            of images.

    Raises:
        InputError: it is no such file, or holds a pickle.
    """
    try:
        _refuse_pickles(path)
        return Exported(torch.export.load(path).module())
    except Exception as error:  # torch raises errors of many kinds
        reason = one_line(error)
        raise InputError(f"{path} is no exported program, or is corrupted: {reason}") from error
