"""The language model every method talks to: rows of vectors go in; states, logits and answers come out.

    model           `Backbone`: load, embed, run, generate
    texts           a chat's text as ids around a slot, data kept apart from markup
    trial           whether a model reads vectors as it reads tokens, tried before it is used
    thoughts        what a thought is, what a step sees and what it makes
    writing         the one loop: words and thoughts, one after the other; `flight` is its fast way
    generation      answers, by that loop; `decoding` is how a token is chosen, `endings` with which line a reply ends
    attention       keys and values that are shared while writing; `states` notes other layers' states
    likelihood      how likely labels are behind thoughts: the loss. Its shortcuts, each with a plain way: `packing`,
                    `prefixes`, `label_losses`, `leaves`
    checkpointing   activations computed again in the backward pass

Imports config, files and places: a backbone knows nothing of tasks, methods or training.
"""

from .decoding import Decoding
from .generation import Completion
from .model import Backbone, Output, home, located, pad
from .texts import MARKS, SLOT
from .thoughts import Made, Mixture, State, Step, Thoughts

__all__ = [
    "MARKS", "SLOT", "Backbone", "Completion", "Decoding", "Made", "Mixture", "Output", "State", "Step", "Thoughts",
    "home", "located", "pad",
]  # fmt: skip
