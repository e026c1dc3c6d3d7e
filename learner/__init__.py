"""The public API: load a trained run and use it (docs/learner.md).

from dmaml.learner import load

adapted = load("runs/omniglot-5w1s").adapt("my/support")
print(adapted.predict("my/query").labels)

Arrays and tensors do as well as folders of pictures. What is wrong with an input raises a
`BadInputError` (`dmaml.common.errors`), one sentence with what was found and what to do.
"""

from dmaml.learner.adapted import Adapted, Prediction
from dmaml.learner.learner import Learner, load

__all__ = ["Adapted", "Learner", "Prediction", "load"]
