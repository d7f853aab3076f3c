"""One process of several, started by torchrun in test_train_ranks.py: `ranks.py BACKBONE OUT ORDERS`.

Orders (JSON): "settings" of TrainConfig; "method" by its name, else MeanRead; "resume"; "pause", seconds per step, so
that there is a middle to interrupt; "stop", a step at which the last process alone gets a Ctrl-C, after which all go on.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from mean_read import MeanRead

from workbench import launch, train  # noqa: F401  (the module behind `loop`)
from workbench.backbone import Backbone
from workbench.methods import LatentMethod, build
from workbench.plan import TrainConfig
from workbench.tasks import load_task

loop = sys.modules["workbench.train"]  # the module: `workbench.train` is the function


class ShardsOnCPU(Accelerator):
    """accelerate shards on GPUs only, torch on a CPU as well: what a launcher with `use_fsdp` asks for happens here."""

    def __init__(self, cpu: bool, mixed_precision: str):
        super().__init__(cpu=cpu, mixed_precision=mixed_precision)
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # from FSDP_..., as accelerate launch sets them


def main(path: str, folder: Path, orders: dict) -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        launch.Accelerator = ShardsOnCPU
    pause, stop, whole_step = orders.get("pause", 0), orders.get("stop"), loop._Run.step

    def step(self, batch, planned):
        time.sleep(pause)
        if planned.number == stop and self.accelerator.is_last_process:
            signal.raise_signal(signal.SIGINT)
        return whole_step(self, batch, planned)

    def method() -> LatentMethod:
        backbone = Backbone.load(path)
        return build(orders["method"], backbone) if "method" in orders else MeanRead(backbone)

    loop._Run.step = step
    config, task = TrainConfig(**orders["settings"]), load_task("arith-shift")
    try:
        loop.train(method(), task, config, folder, resume=orders.get("resume", False))
    except KeyboardInterrupt as interrupted:
        print(interrupted, flush=True)
        if stop is None:
            sys.exit(130)
        stop = None
        loop.train(method(), task, config, folder, resume=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
