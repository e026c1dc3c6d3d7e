"""What the embedded cluster makes of a run's status."""

from __future__ import annotations

import pytest

from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.items import RunState
from dmaml.deploy.local import raise_if_failed
from dmaml.v1.control_pb2 import StatusReply


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.FAILED])
def test_a_run_that_diverged_says_so_whatever_its_sentence(state: RunState) -> None:
    status = StatusReply(state=int(state), message="a sentence", has_diverged=True)

    with pytest.raises(DivergedError, match="a sentence"):
        raise_if_failed(status)


def test_an_error_that_speaks_of_what_is_void_is_no_divergence() -> None:
    status = StatusReply(state=int(RunState.FAILED), message="unable to avoid: void")

    with pytest.raises(RunFailedError) as caught:
        raise_if_failed(status)

    assert type(caught.value) is RunFailedError


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.DRAINING, RunState.PAUSED])
def test_a_run_that_goes_on_or_was_paused_by_its_operator_is_left_alone(state: RunState) -> None:
    raise_if_failed(StatusReply(state=int(state), message="a void in the cellar"))

    assert state not in (RunState.FAILED, RunState.FINISHED)
