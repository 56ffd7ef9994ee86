"""How processes that train together meet: in a file, so that none of them listens beyond this machine."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch.distributed as dist
from lightning_fabric.strategies import DDPStrategy  # type: ignore[attr-defined]

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.helper import MEETING, NUMBER

WAIT = 1800  # seconds that one process waits for another, while that measures an epoch, for example


class InAFile(DDPStrategy):
    """Fabric's strategy for one process per device.

    torch's own meeting place is a server that listens on every address of the machine. This one is a file.
    """

    def setup_environment(self) -> None:
        """Meet, before Fabric would: it keeps a group that there is already.

        Raises:
            DeepCustomError: a process ended before it could be met.
        """
        devices = self.parallel_devices or []
        backend = "gloo" if self.root_device.type == "cpu" else "nccl"
        try:
            dist.init_process_group(
                backend,
                init_method=f"file://{os.environ[MEETING]}",
                rank=int(os.environ[NUMBER]),
                world_size=len(devices),
                timeout=timedelta(seconds=WAIT),
            )
        except RuntimeError as error:
            raise DeepCustomError(f"the processes of one training did not meet: {error}") from error
        if backend == "nccl":
            atexit.register(dist.destroy_process_group)
        super().setup_environment()
