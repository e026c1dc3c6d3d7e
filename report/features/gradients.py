"""What a trained network looks for in a picture: gradients with respect to its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]  # pictures [N, C, H, W] -> a number for each, [N]
STEPS: Final = 200
RATE: Final = 0.05  # of Adam, in units of a pixel's range
L2: Final = 0.02
VARIATION: Final = 0.3


def saliency(score: Score, pictures: Tensor) -> Tensor:
    """Return how much each pixel moves the score: max over channels of |∂S/∂x|.

    Args:
        score: S, differentiable; each picture's depends on that picture alone.
        pictures: `[N, channels, height, width]`.

    Returns:
        `[N, height, width]`, >= 0.

    References:
        Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks" (2013), section 3.1.
    """
    x = pictures.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x).sum(), x)
    return gradient.abs().amax(1)


def ascended(
    score: Score,
    start: Tensor,
    l2: float = L2,
    variation: float = VARIATION,
    steps: int = STEPS,
    rate: float = RATE,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Tensor:
    """Return pictures that maximise a score, by gradient ascent from `start`.

        x* = argmax S(x) − l2 Σ x² − variation Σ (∇x)²

    ∇x are the differences of neighbouring pixels: a smooth picture with little ink is preferred
    to noise. Adam climbs; after each step x is put back between the bounds. Nothing is random.

    Args:
        score: S, differentiable; each picture's depends on that picture alone. Give it a scale
            of about 1, for the regulariser has one.
        start: `[N, channels, height, width]`.
        l2, variation: weights of the regulariser, >= 0.
        steps, rate: of Adam.
        bounds: of a pixel; None: none.

    References:
        Erhan, Bengio, Courville, Vincent, "Visualizing higher-layer features of a deep network"
        (2009): activation maximisation. Simonyan, Vedaldi, Zisserman (2013), section 2: the L2
        term. Mahendran, Vedaldi, "Understanding deep image representations by inverting them"
        (2015), section 3: total variation, here squared (β = 2).
    """
    x = start.detach().clone().requires_grad_()
    climber = torch.optim.Adam([x], rate, maximize=True, foreach=False, fused=False)
    for _ in range(steps):
        climbed = score(x).sum() - l2 * x.square().sum() - variation * roughness(x)
        (x.grad,) = torch.autograd.grad(climbed, x)
        climber.step()
        if bounds is not None:
            with torch.no_grad():
                x.clamp_(*bounds)
    return x.detach()


def roughness(x: Tensor) -> Tensor:
    """Return the sum of squared differences of neighbouring pixels of `[N, C, H, W]`."""
    down, across = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return down.square().sum() + across.square().sum()
