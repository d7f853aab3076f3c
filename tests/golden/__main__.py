"""Record the golden trajectory anew: `python -m tests.golden`, only after a change that is meant to change training."""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests import each other as pytest does

from conftest import save_tiny
from test_train import GOLDEN, OPTIMIZERS, golden_losses

from workbench.backbone import Backbone
from workbench.runs import versions

with tempfile.TemporaryDirectory() as folder:
    backbone = Backbone.load(str(save_tiny(Path(folder) / "tiny")))
    curves = {name: golden_losses(backbone, Path(folder) / name, name) for name in OPTIMIZERS}
curves = {name: [round(loss, 6) for loss in losses] for name, losses in curves.items()}
GOLDEN.write_text(json.dumps({**curves, "versions": versions()}) + "\n")
for name, losses in curves.items():
    print(f"{GOLDEN}: {name}, {len(losses)} steps, {losses[0]:.4f} to {losses[-1]:.4f}")
