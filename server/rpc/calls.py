"""What all services share: errors become statuses, and nothing else leaves a call."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from dmaml.common.errors import DmamlError, status_of

log = logging.getLogger("dmaml.server")
Method = TypeVar("Method", bound=Callable[..., Any])


def guarded(method: Method) -> Method:
    """Answer a DmamlError with its gRPC status and its sentence."""
    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def stream(self: Any, request: Any, context: Any) -> Any:
            try:
                async for reply in method(self, request, context):
                    yield reply
            except DmamlError as error:
                await _abort(context, error)

        return stream  # type: ignore[return-value]

    @functools.wraps(method)
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except DmamlError as error:
            return await _abort(context, error)

    return unary  # type: ignore[return-value]


async def _abort(context: Any, error: DmamlError) -> None:
    log.info("call refused: %s", error)
    await context.abort(getattr(grpc.StatusCode, status_of(error)), str(error))
