"""The names of the published experiments. Importing it costs nothing, unlike `deploy.repro`."""

from __future__ import annotations

from typing import Final

from dmaml.common.errors import UnknownNameError

NAMES: Final = (
    "implementation_omniglot",
    "implementation_miniimagenet",
    "implementation_sinusoid",
    "workers",
    "epochs",
    "tasks",
    "gradient_steps",
    "beta_omniglot",
    "beta_miniimagenet",
    "beta_sinusoid",
    "scaling",
    "durations",
    "workers_vs_tasks",
    "generators",
    "byzantine",
    "modes",
    "maml_omniglot_5w1s",
    "maml_omniglot_5w5s",
    "omniglot_20w5s",
    "maml_hour_omniglot_5w1s",
    "omniglot_20w1s",
    "fomaml_omniglot_5w1s",
    "maml_mlp_omniglot_5w1s",
    "maml_plus_plus_omniglot_5w1s",
    "meta_sgd_omniglot_5w1s",
    "reptile_omniglot_5w1s",
    "reptile_hour_omniglot_5w1s",
    "protonet_omniglot_5w1s",
    "protonet_omniglot_20w1s",
    "matching_omniglot_5w1s",
    "mann_omniglot_5w1s",
    "mann_omniglot_5w5s",
    "lstm_omniglot_5w5s",
    "sinusoid_5shot",
    "sinusoid_5shot_learned",
    "meta_sgd_sinusoid_5shot",
    "function_families_hsml",
    "miniimagenet_5w1s",
    "navigation",
    "navigation_code",
    "mnist_baseline",
    "clustering_kmeans",
    "clustering_gamma",
    "clustering_mixture",
    "clustering_tree",
    "clustering_bias",
    "clustering_iterations",
    "clustering_table3",
    "clustering_alphabets",
    "clustering_families",
    "clustering_styles",
    "clustering_splits",
)


def known(name: str) -> str:
    """Return the name of an experiment, which may be written with dashes.

    Raises:
        UnknownNameError: no experiment has this name.
    """
    found = name.replace("-", "_")
    if found not in NAMES:
        raise UnknownNameError("experiment", name, NAMES)
    return found
