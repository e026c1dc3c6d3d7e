"""Layers whose first and second derivatives are nothing but matrix products.

A task's adapted weights are its own, so a batch of tasks cannot share a convolution: under
`torch.func.vmap` it becomes a grouped one, whose second derivative is slow on a CPU. Written as
patches times a matrix it becomes one batched matrix product, and so does every derivative.
Pictures are channels-last, so that patches are copied in long runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

EPS = 1e-5
Moments = tuple[Tensor, Tensor]  # mean and biased variance


def out_size(size: int) -> int:
    """Return the height or width after a 3x3 convolution of stride 2 and padding 1."""
    return (size - 1) // 2 + 1


def _gather(x: Tensor) -> Tensor:
    num, height, width, channels = x.shape
    rows, columns = out_size(height), out_size(width)
    padded = x.new_zeros(num, 2 * rows + 1, 2 * columns + 1, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x
    a, b, c, _ = padded.stride()
    windows = padded.as_strided(
        (num, rows, columns, 3, 3 * channels), (a, 2 * b, 2 * c, b, 1)
    )  # the three pixels of a window's row lie side by side
    return windows.contiguous().view(num, rows * columns, 9 * channels)


def _scatter(patches: Tensor, height: int, width: int) -> Tensor:
    num, _, size = patches.shape
    rows, columns, channels = out_size(height), out_size(width), size // 9
    windows = patches.reshape(num, rows, columns, 3, 3, channels)
    padded = patches.new_zeros(num, 2 * rows + 1, 2 * columns + 1, channels)
    for i in range(3):
        for j in range(3):
            padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += windows[:, :, :, i, j]
    return padded[:, 1 : height + 1, 1 : width + 1]


class _Patches(Function):
    """`[N, H, W, C]` -> `[N, L, 9 C]`; linear, so its derivative is its adjoint `_Pixels`."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.size = inputs[0].shape[1:3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _apply(_Pixels, grad, *ctx.size)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return _apply(_Patches, tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int]:
        assert in_dims[0] is not None
        x = x.movedim(in_dims[0], 0)
        windows = _apply(_Patches, x.flatten(0, 1))
        return windows.view(*x.shape[:2], *windows.shape[1:]), 0


class _Pixels(Function):
    """The adjoint of `_Patches`: `[N, L, 9 C]` -> `[N, H, W, C]`, overlaps are added."""

    @staticmethod
    def forward(patches: Tensor, height: int, width: int) -> Tensor:
        return _scatter(patches, height, width)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        ctx.size = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _apply(_Patches, grad), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, height: None, width: None) -> Tensor:
        return _apply(_Pixels, tangent, *ctx.size)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, None, None], patches: Tensor, height: int, width: int
    ) -> tuple[Tensor, int]:
        assert in_dims[0] is not None
        patches = patches.movedim(in_dims[0], 0)
        pixels = _apply(_Pixels, patches.flatten(0, 1), height, width)
        return pixels.reshape(*patches.shape[:2], *pixels.shape[1:]), 0


def patches(x: Tensor) -> Tensor:
    """Return what a 3x3 window of stride 2 sees at each place of a zero-padded picture.

    Args:
        x: `[N, H, W, C]`.

    Returns:
        `[N, L, 9 C]`, L = ceil(H / 2) ceil(W / 2) places; within a window row, column, channel.
    """
    return _apply(_Patches, x)


def windows_and_one(x: Tensor) -> Tensor:
    """Return what a 3x3 window of stride 1 sees at each place of a zero-padded picture.

    For pictures of the data only: it has no quick derivative.

    Args:
        x: `[N, H, W, C]`.

    Returns:
        `[N, H W, 9 C + 1]`; within a window row, column, channel, and a one at the end.
    """
    height, width = x.shape[1:3]
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    views = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.cat([*views, torch.ones_like(x[..., :1])], dim=3).flatten(1, 2)


def _apply(function: type[Function], *inputs: Any) -> Tensor:
    result: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return result


def batch_norm(
    x: Tensor, scale: Tensor, shift: Tensor, statistics: Moments | None
) -> tuple[Tensor, Moments]:
    """Normalise each column: scale (x - mean) / sqrt(variance + 1e-5) + shift.

    Args:
        x: `[M, C]`.
        scale, shift: `[C]`.
        statistics: (mean, variance) `[C]` each to impose, or None for those of `x` itself
            (biased variance, as torch's batch norm in training).

    Returns:
        `[M, C]`, and (mean, variance) as used.
    """
    if statistics is None:  # sums, not means: the derivative of a mean fills a whole tensor
        mean = x.sum(0) / x.shape[0]
        centred = x - mean
        variance = centred.square().sum(0) / x.shape[0]
    else:
        mean, variance = statistics
        centred = x - mean
    gain = scale * torch.rsqrt(variance + EPS)
    return torch.addcmul(shift, centred, gain), (mean, variance)


def folded_batch_norm(
    x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, statistics: Moments | None
) -> tuple[Tensor, Moments]:
    """Return the matrix that does a linear layer and its batch norm at once.

    The statistics of x W follow from those of x: the mean is mean(x) W and the variance of
    column c is W_c' Cov(x) W_c. So nothing of the size of x W is needed, which pays where x has
    fewer columns than W.

    Args:
        x: `[M, K]`.
        weight: W `[K, C]`.
        scale, shift, statistics: as for `batch_norm` of x W.

    Returns:
        V `[K + 1, C]` such that [x, 1] V = batch_norm(x W), and (mean, variance) as used.
    """
    if statistics is None:
        x_mean = x.mean(0)
        centred = x - x_mean
        covariance = torch.mm(centred.T, centred) / x.shape[0]
        mean = torch.mv(weight.T, x_mean)
        variance = (weight * torch.mm(covariance, weight)).sum(0)
    else:
        mean, variance = statistics
    gain = scale * torch.rsqrt(variance + EPS)
    return torch.cat([weight * gain, (shift - mean * gain)[None]]), (mean, variance)
