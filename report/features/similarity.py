"""How alike two layers are: centred kernel alignment of what they make of the same examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
LEAST = 4  # examples: the estimator divides by n - 3


def cka(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return linear CKA of two representations of the same n examples, without bias.

        CKA(X, Y) = HSIC(XXᵀ, YYᵀ) / √(HSIC(XXᵀ, XXᵀ) HSIC(YYᵀ, YYᵀ))

    with the unbiased estimator of HSIC: 1 for representations that differ by a rotation, a
    common scale or a shift; 0 on average for independent ones, also where there are far more
    features than examples (the plain estimator is then close to 1). It may be slightly negative.

    Args:
        x, y: `[n, features]`, n >= 4; the numbers of features may differ.

    Returns:
        At most 1; NaN where one of them is the same for all examples.

    Raises:
        ValueError: fewer than 4 examples, or different numbers.

    References:
        Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited"
        (2019), equations 3 and 4; the unbiased HSIC as in Nguyen, Raghu, Kornblith, "Do wide and
        deep networks learn the same things?" (2021), equation 3.
    """
    return aligned(centred_kernel(x), centred_kernel(y))


def cka_matrix(before: Mapping[str, Float64], after: Mapping[str, Float64]) -> Float64:
    """Return CKA of each layer of `before` (rows) with each of `after` (columns).

    Args:
        before, after: by layer, what `centred_kernel` gave.
    """
    return np.array([[aligned(one, other) for other in after.values()] for one in before.values()])


def centred_kernel(x: NDArray[np.floating]) -> Float64:
    """Return XXᵀ U-centred, float64 `[n, n]`: rows, columns and the diagonal sum to 0.

    The inner product of two such matrices, over n(n − 3), is the unbiased HSIC.

    Args:
        x: `[n, features]`.

    Raises:
        ValueError: fewer than 4 examples.
    """
    n = len(x)
    if n < LEAST:
        raise ValueError(f"CKA required at least {LEAST} examples, found {n}")
    values = np.asarray(x, dtype=np.float64)
    values = values - values.mean(axis=0)  # changes nothing but the rounding
    kernel: Float64 = values @ values.T
    np.fill_diagonal(kernel, 0.0)
    rows = kernel.sum(axis=0) / (n - 2)
    whole = kernel.sum() / ((n - 1) * (n - 2))
    kernel += whole - rows[:, None] - rows[None, :]
    np.fill_diagonal(kernel, 0.0)
    return kernel


def aligned(k: Float64, kernel: Float64) -> float:
    """Return the cosine between two U-centred kernels; NaN where one is zero.

    Raises:
        ValueError: different numbers of examples.
    """
    if k.shape != kernel.shape:
        raise ValueError(f"CKA required as many examples on both sides, found {k.shape[0]} and "
                         f"{kernel.shape[0]}")  # fmt: skip
    norms = float(np.linalg.norm(k) * np.linalg.norm(kernel))
    return float((k * kernel).sum() / norms) if norms > 0 else float("nan")
