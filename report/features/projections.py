"""Features in the plane: principal components and t-SNE, and how well they part the classes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Float64 = NDArray[np.float64]
PERPLEXITY: Final = 30.0


def principal(features: NDArray[np.floating]) -> tuple[Float64, tuple[float, float]]:
    """Return the first two principal components, and their shares of the variance.

    Args:
        features: `[n, features]`, n >= 2.

    Returns:
        float64 `[n, 2]`; a direction without variance is 0.
    """
    from sklearn.decomposition import PCA

    values = np.asarray(features, dtype=np.float64)
    points, shares = np.zeros((len(values), 2)), np.zeros(2)
    if np.ptp(values, axis=0).max() > 0:
        count = min(2, *values.shape)
        with threadpool_limits(1):
            found = PCA(n_components=count, svd_solver="full").fit(values)
            points[:, :count] = found.transform(values)
        shares[:count] = found.explained_variance_ratio_
    return points, (float(shares[0]), float(shares[1]))


def neighbours(features: NDArray[np.floating], seed: int) -> Float64:
    """Return t-SNE of features, float64 `[n, 2]`: near points were near in all dimensions.

    It starts from the principal components; perplexity is 30, or (n − 1) / 3 of fewer examples.

    Args:
        features: `[n, features]`, n >= 4.
        seed: the run's.

    References:
        van der Maaten, Hinton, "Visualizing data using t-SNE" (2008).
    """
    from sklearn.manifold import TSNE

    values = np.asarray(features, dtype=np.float64)
    if not np.ptp(values, axis=0).max() > 0:
        return np.zeros((len(values), 2))
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    start, _ = principal(values)
    start *= 1e-4 / start[:, 0].std()
    with threadpool_limits(1):
        made = TSNE(
            2, perplexity=perplexity, init=start, learning_rate="auto", random_state=seed % 2**32
        )
        points: Float64 = made.fit_transform(values).astype(np.float64)
    return points


def separation(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the mean silhouette: 1 where classes are tight and far apart, 0 where they overlap.

    Args:
        features: `[n, features]`.
        labels: `[n]`, 2 to n − 1 different ones.

    References:
        Rousseeuw, "Silhouettes" (1987).
    """
    from sklearn.metrics import silhouette_score

    with threadpool_limits(1):
        return float(silhouette_score(np.asarray(features, dtype=np.float64), labels))
