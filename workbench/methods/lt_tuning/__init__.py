"""LT-Tuning: the model decides when to think; a thought is its state fused with what it predicts (arXiv 2602.10229).

    e = sum_v q_v E_v                 q: the next word's nucleus, the mark left out
    z = alpha h + (1 - alpha) e       h: a layer's state at the position before      (Context-Prediction Fusion)

`<thinking>` is one more word. The model writes it like any other; what it then reads is z, not the mark's embedding.
Training: plain chain of thought; then marks before words that the model as it stands finds unlikely, each read as the
state before it; then the same recipe with the fusion. Every mark is a label, so that *when* to think is learned too.

`LTTuningConfig()` is the paper with defects of the released code mended: positions are chosen on the very ids that are
trained, each example draws its own, the nucleus holds the word that crosses top_p, batches are averaged over all their
labels. `presets` has the paper's three sizes, the released code's settings and the controls of the ablation.
"""

from .config import LTTuningConfig
from .latents import Adapter, expected_word, fused
from .method import LTTuning
from .places import candidates, inserted, label_probabilities

__all__ = [
    "Adapter", "LTTuning", "LTTuningConfig", "candidates", "expected_word", "fused", "inserted", "label_probabilities",
]  # fmt: skip
