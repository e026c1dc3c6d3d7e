"""The public API: load a trained run and use it.

from dmaml.learner import load

learner = load("runs/omniglot-5w1s")
print(learner.evaluate(tasks=600)["accuracy"])
"""

from dmaml.learner.learner import Learner, load

__all__ = ["Learner", "load"]
