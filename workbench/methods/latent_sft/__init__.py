"""Latent-SFT: thoughts as superpositions of words, learned from compressed chains (arXiv 2510.15522).

    z = sum_v w_v embedding(v)        w: softmax over the K likeliest words

An encoder reads the worked steps and writes, behind each piece of `ratio` tokens, which words shall stand for it; the
decoder must be able to write the next piece from that latent alone, and the answer from the latents alone. So labels
come about. Then the decoder learns to predict each label from the latents before it, as it would a word, and the end
mark behind the last. At test it thinks until the end mark wins, reads the mark whole, and writes the answer.

Legs: plain chain of thought (optional), encoder, decoder, both, then the decoder on the labels. `config` has the
settings, `layout` the rows and masks, `superposition` the arithmetic, `labels` the files of labels. Defects of the
released code are mended: masks are built from what each place is, one accessor gives the chain to all legs, labels are
known by their examples, noise is drawn by (seed, epoch, example).
"""

from .config import LatentSFTConfig
from .labels import read_labels, write_labels
from .layout import decoder_layout, encoder_layout, latent_layout
from .method import LatentSFT
from .superposition import divergence, divergences, noised, superposed

__all__ = [
    "LatentSFT", "LatentSFTConfig", "decoder_layout", "divergence", "divergences", "encoder_layout", "latent_layout",
    "noised", "read_labels", "superposed", "write_labels",
]  # fmt: skip
