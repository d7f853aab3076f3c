"""Record the golden trajectory anew: `python -m tests.golden`, only after a change that is meant to change training."""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests import each other as pytest does

from conftest import save_tiny
from test_train import GOLDEN, golden_losses

from workbench.backbone import Backbone
from workbench.runs import versions

with tempfile.TemporaryDirectory() as folder:
    backbone = Backbone.load(str(save_tiny(Path(folder) / "tiny")))
    losses = golden_losses(backbone, Path(folder) / "run")
GOLDEN.write_text(json.dumps({"loss": [round(loss, 6) for loss in losses], "versions": versions()}, indent=1) + "\n")
print(f"{GOLDEN}: {len(losses)} steps, {losses[0]:.4f} to {losses[-1]:.4f}")
