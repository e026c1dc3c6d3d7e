"""Convolutions of stride 1 and max-pooling with second derivatives that are quick on a CPU.

Under `torch.func.vmap` a convolution with weights of each task's own becomes a grouped one, which
is slow. Here a stack of tasks is convolved task by task inside one node of the graph, by the
kernels that a plain network uses, and the derivatives are such convolutions again. Pictures are
channels-last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

InDims = tuple[int | None, ...]


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution of stride 1 and padding 1.

    Args:
        x: `[N, H, W, C]`.
        weight: `[3, 3, C, O]`.

    Returns:
        `[N, H, W, O]`.
    """
    convolved: Tensor = _apply(_Convolve, x[None], weight[None])[0]
    return convolved


def max_pool(x: Tensor) -> Tensor:
    """Return the largest value of each 2x2 window.

    Args:
        x: `[N, H, W, C]`; a last odd row or column is left out.

    Returns:
        `[N, H // 2, W // 2, C]`. Of equal values the first gets the derivative.
    """
    pooled: Tensor = _apply(_Pool, x)[0]
    return pooled


# --- convolution of a stack of tasks: [T, N, H, W, C] * [T, 3, 3, C, O] ---------------------------


class _Convolve(Function):
    """Bilinear in pictures and weights, so its derivatives are itself and `_Correlate`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        out = x.new_empty(*x.shape[:-1], weight.shape[-1])
        for task, (pictures, kernel) in enumerate(zip(x, weight, strict=True)):
            out[task] = F.conv2d(_planes(pictures), _kernel(kernel), padding=1).movedim(1, -1)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, by_weight = ctx.needs_input_grad
        return (
            _apply(_Convolve, grad, _turned(weight)) if by_x else None,
            _apply(_Correlate, x, grad) if by_weight else None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dweight: Tensor | None) -> Tensor:
        return _product_rule(_Convolve, ctx.saved_tensors, dx, dweight)

    @staticmethod
    def vmap(info: Any, in_dims: InDims, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        x, weight = _stacked(info.batch_size, in_dims, x, weight)
        out = _apply(_Convolve, x.flatten(0, 1), weight.flatten(0, 1))
        return out.unflatten(0, x.shape[:2]), 0


class _Correlate(Function):
    """The derivative of `_Convolve` by the weights: `[T, N, H, W, C]`, `[T, N, H, W, O]`."""

    @staticmethod
    def forward(x: Tensor, grad: Tensor) -> Tensor:
        size = (grad.shape[-1], x.shape[-1], 3, 3)
        kernels = [
            conv2d_weight(_planes(pictures), size, _planes(one), padding=1)  # type: ignore[no-untyped-call]
            for pictures, one in zip(x, grad, strict=True)
        ]
        return torch.stack([kernel.permute(2, 3, 1, 0) for kernel in kernels])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, grad = ctx.saved_tensors
        by_x, by_grad = ctx.needs_input_grad
        return (
            _apply(_Convolve, grad, _turned(weight)) if by_x else None,
            _apply(_Convolve, x, weight) if by_grad else None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dgrad: Tensor | None) -> Tensor:
        return _product_rule(_Correlate, ctx.saved_tensors, dx, dgrad)

    @staticmethod
    def vmap(info: Any, in_dims: InDims, x: Tensor, grad: Tensor) -> tuple[Tensor, int]:
        x, grad = _stacked(info.batch_size, in_dims, x, grad)
        out = _apply(_Correlate, x.flatten(0, 1), grad.flatten(0, 1))
        return out.unflatten(0, x.shape[:2]), 0


def _product_rule(
    bilinear: type[Function], inputs: tuple[Tensor, Tensor], da: Tensor | None, db: Tensor | None
) -> Tensor:
    """Return f(da, b) + f(a, db) at (a, b); None for a tangent is zero, one of them is given."""
    a, b = inputs
    terms: list[Tensor] = []
    if da is not None:
        terms.append(_apply(bilinear, da, b))
    if db is not None:
        terms.append(_apply(bilinear, a, db))
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _planes(x: Tensor) -> Tensor:
    return x.contiguous().movedim(-1, 1)  # a view: channels-last is how they lie


def _kernel(weight: Tensor) -> Tensor:
    return weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _turned(weight: Tensor) -> Tensor:
    """Return the weights of the adjoint, `[T, 3, 3, O, C]`."""
    return weight.flip(1, 2).mT


# --- pooling: [N, H, W, C] -> [N, R, S, C] ------------------------------------------------------


class _Pool(Function):
    """Also returns where the largest values were: row W + column, int64 `[N, R, S, C]`."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = F.max_pool2d(_planes(x), 2, return_indices=True)
        return y.movedim(1, -1), places.movedim(1, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.size = inputs[0].shape[1:3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        pictures: Tensor = _apply(_Put, grad, ctx.saved_tensors[0], *ctx.size)
        return pictures

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        return _apply(_Take, dx, ctx.saved_tensors[0]), None

    @staticmethod
    def vmap(
        info: Any, in_dims: InDims, x: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        (x,) = _stacked(info.batch_size, in_dims, x)
        y, places = _apply(_Pool, x.flatten(0, 1))
        return (y.unflatten(0, x.shape[:2]), places.unflatten(0, x.shape[:2])), (0, 0)


class _Put(Function):
    """`[N, R, S, C]` at its places of `[N, height, width, C]`, zero elsewhere; linear."""

    @staticmethod
    def forward(y: Tensor, places: Tensor, height: int, width: int) -> Tensor:
        # the pictures that were pooled are asked for, but no more than their size is looked at
        like = y.new_empty(1).expand(y.shape[0], y.shape[3], height, width)
        like = like.to(memory_format=torch.channels_last)
        pictures: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            _planes(y), like, [2, 2], [2, 2], [0, 0], [1, 1], False, _planes(places)
        )
        return pictures.movedim(1, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])
        ctx.size = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _apply(_Take, grad, ctx.saved_tensors[0]), None, None, None

    @staticmethod
    def jvp(ctx: Any, dy: Tensor, *_: None) -> Tensor:
        pictures: Tensor = _apply(_Put, dy, ctx.saved_tensors[0], *ctx.size)
        return pictures

    @staticmethod
    def vmap(
        info: Any, in_dims: InDims, y: Tensor, places: Tensor, height: int, width: int
    ) -> tuple[Tensor, int]:
        y, places = _stacked(info.batch_size, in_dims[:2], y, places)
        out = _apply(_Put, y.flatten(0, 1), places.flatten(0, 1), height, width)
        return out.unflatten(0, y.shape[:2]), 0


class _Take(Function):
    """The adjoint of `_Put`: the values of `[N, H, W, C]` at places `[N, R, S, C]`."""

    @staticmethod
    def forward(x: Tensor, places: Tensor) -> Tensor:
        return x.flatten(1, 2).gather(1, places.flatten(1, 2)).view(places.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])
        ctx.size = inputs[0].shape[1:3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _apply(_Put, grad, ctx.saved_tensors[0], *ctx.size), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        values: Tensor = _apply(_Take, dx, ctx.saved_tensors[0])
        return values

    @staticmethod
    def vmap(info: Any, in_dims: InDims, x: Tensor, places: Tensor) -> tuple[Tensor, int]:
        x, places = _stacked(info.batch_size, in_dims, x, places)
        out = _apply(_Take, x.flatten(0, 1), places.flatten(0, 1))
        return out.unflatten(0, x.shape[:2]), 0


def _stacked(size: int, in_dims: InDims, *tensors: Tensor) -> list[Tensor]:
    """Return each tensor with the mapped dimension first; one that has none is repeated."""
    return [
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


def _apply(function: type[Function], *inputs: Any) -> Any:
    return function.apply(*inputs)  # type: ignore[no-untyped-call]
