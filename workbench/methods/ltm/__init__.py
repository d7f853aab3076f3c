"""LTM: thoughts are latent vectors that variational Bayes fits to each text as it is read (arXiv 2502.01567).

    p(x, z) = N(z; 0, I) prod_i p(x_i | z, x_<i)         a windowed decoder; z by cross-attention, layer by layer
    q(z | x) = N(mu, exp(log_var))                       found by some steps of Adam on that text, then thrown away

    decoder      the language model, its configuration and checkpoint
    blocks       what it is built of
    inference    the fast loop, Langevin, and the KL floor of a setting
    learning     the slow loop's gradients
    encoder      amortised inference
    generation   writing with a cache
    model        the decoder as the house's language model; bytes and letters as tokenizers
    bounds       what a text costs: bounds beside each other
    method       all of it as a method

`LTMConfig()` is the paper's algorithm with what spoils it mended: a new noise for every step, no decay, rates that
reach the prior. `presets` has the paper's settings and the released code's.
"""

from .bounds import Costs, costs, same_noise, table
from .config import LTMConfig
from .decoder import Decoder, Shape
from .inference import Gaussian, Loop, Noise, floor, infer, langevin
from .method import LTM

__all__ = [
    "LTM", "Costs", "Decoder", "Gaussian", "LTMConfig", "Loop", "Noise", "Shape", "costs", "floor", "infer", "langevin",
    "same_noise", "table",
]  # fmt: skip
