"""One process of several, started by torchrun in test_train_ranks.py: `ranks.py BACKBONE OUT ORDERS`.

Orders (JSON): "settings" of TrainConfig; "method", mean-read unless given; "pause", seconds per step, so that there is
a middle to interrupt; "stop", a step at which the last process alone gets a Ctrl-C, and then all resume. Each
checkpoint is a line on stdout, and so are each file of weights, the seed of each step and what was sharded.
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
from staged import Staged
from torch.distributed.fsdp import FSDPModule

from workbench import runs
from workbench.backbone import Backbone
from workbench.methods import LatentMethod, build
from workbench.methods.lt_tuning import LTTuningConfig
from workbench.tasks import load_task
from workbench.training import launch, loop
from workbench.training.plan import TrainConfig


def marking(backbone: Backbone) -> LatentMethod:
    """LT-Tuning in float64, its three stages as long as each other; a word in two gets a mark."""
    config = LTTuningConfig(plain_share=1 / 3, state_share=1 / 3, threshold=0.02, cap=4, cap_fusion=4, adapter=8)
    return build("lt-tuning", backbone, config, seed=1).double()


MAKE = {"mean-read": MeanRead, "staged": Staged, "lt-tuning": marking}


class ShardsOnCPU(Accelerator):
    """accelerate shards on GPUs only, torch on a CPU as well: what a launcher with `use_fsdp` asks for happens here."""

    def __init__(self, cpu: bool, mixed_precision: str):
        super().__init__(cpu=cpu, mixed_precision=mixed_precision)
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # from FSDP_..., as accelerate launch sets them


def main(path: str, folder: Path, orders: dict) -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        launch.Accelerator = ShardsOnCPU
    pause, stop, whole_step, save = orders.get("pause", 0), orders.get("stop"), loop._Run.step, torch.save

    def step(self, batch, planned):
        time.sleep(pause)
        if planned.number == stop and self.accelerator.is_last_process:
            signal.raise_signal(signal.SIGINT)
        values = whole_step(self, batch, planned)
        print(f"noise of step {planned.number}: {torch.initial_seed()}", flush=True)  # what dropout was drawn from
        return values

    def told(content, path):
        if isinstance(content, dict):  # and not the prompts of a stage
            print(f"checkpoint of step {content['step']} by process {os.environ['RANK']}", flush=True)
        save(content, path)

    def wrote(method, *given, write=runs.save_weights, **named):
        print(f"weights of step {method.training_step} by process {os.environ['RANK']}", flush=True)
        return write(method, *given, **named)

    loop._Run.step, torch.save, runs.save_weights = step, told, wrote
    make = MAKE[orders.get("method", "mean-read")]
    config, task, method = TrainConfig(**orders["settings"]), load_task("arith-shift"), make(Backbone.load(path))
    try:
        loop.train(method, task, config, folder)
    except KeyboardInterrupt as interrupted:
        print(interrupted, flush=True)
        if stop is None:
            sys.exit(130)
        stop, method = None, make(Backbone.load(path))
        loop.train(method, task, config, folder, resume=True)
    print(*(type(module).__name__ for module in method.modules() if isinstance(module, FSDPModule)), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # all is done; threads that torch has left can abort an interpreter that ends in its own time
