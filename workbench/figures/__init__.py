"""Figures for paper and screen: one function each from a table to a plotly figure, one template, one way to save.

A figure draws the numbers it is given and computes nothing that has a name in `diagnostics`, `scores` or `projection`.
"""

from .curves import collapse_along, collapse_by_step, loss_curves, run_curves, statistic_title
from .evidence import evidence
from .export import redraw, save
from .gallery import GALLERY, write_gallery
from .heatmaps import divergences, matrix, readout, step_similarity
from .intervals import accuracy, bars
from .look import Style, style, template
from .maps import thought_map
from .motion import thought_motion
from .response import response
from .shares import shares
from .spectra import distance_qq, spectrum
from .speed import speed

__all__ = [
    "GALLERY",
    "Style",
    "accuracy",
    "bars",
    "collapse_along",
    "collapse_by_step",
    "distance_qq",
    "divergences",
    "evidence",
    "loss_curves",
    "matrix",
    "readout",
    "redraw",
    "response",
    "run_curves",
    "save",
    "shares",
    "spectrum",
    "speed",
    "statistic_title",
    "step_similarity",
    "style",
    "template",
    "thought_map",
    "thought_motion",
    "write_gallery",
]
