"""The public API: load a trained run and use it (docs/learner.md).

from dmaml.learner import load

adapted = load("runs/omniglot-5w1s").adapt("my/support")
print(adapted.predict("my/query").labels)
"""

from dmaml.learner.adapted import Adapted, Prediction
from dmaml.learner.learner import Learner, load

__all__ = ["Adapted", "Learner", "Prediction", "load"]
