"""When a call is repeated, how long between, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from dmaml.common.errors import ConfigError, DmamlError, ServerUnreachableError, error_of
from dmaml.worker.connection import Address, Retry

REPEATED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
FINAL = [code for code in grpc.StatusCode if code not in REPEATED and code.name != "OK"]


class Refusal(grpc.RpcError, grpc.Call):
    """What a stub raises."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "the details"


for _name in grpc.Call.__abstractmethods__ - set(vars(Refusal)):
    setattr(Refusal, _name, None)
Refusal.__abstractmethods__ = frozenset()


class Time:
    """A clock that moves by what is slept."""

    def __init__(self) -> None:
        self.now = 100.0
        self.bounds: list[tuple[float, float]] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def longest(self, low: float, high: float) -> float:
        """The jitter that waits as long as it may."""
        self.bounds.append((low, high))
        return high

    def retry(self, orphan_s: float) -> Retry:
        return Retry(orphan_s, self.sleep, self.clock, self.longest)


def failing(times: int, code: grpc.StatusCode, calls: list[int]) -> Callable[[], str]:
    """Return a call that fails `times` times, then succeeds; each call is noted."""

    def attempt() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise Refusal(code)
        return "answer"

    return attempt


@pytest.mark.parametrize("code", REPEATED)
def test_a_call_that_got_no_answer_is_repeated(code: grpc.StatusCode) -> None:
    calls: list[int] = []

    assert Time().retry(60.0).call("lease", "h:1", failing(3, code, calls)) == "answer"
    assert len(calls) == 4


@pytest.mark.parametrize("code", FINAL)
def test_an_answer_is_final(code: grpc.StatusCode) -> None:
    calls: list[int] = []

    with pytest.raises(DmamlError, match="the details") as caught:
        Time().retry(60.0).call("lease", "h:1", failing(9, code, calls))

    assert len(calls) == 1
    assert type(caught.value) is type(error_of(code.name, ""))


def test_an_error_of_our_own_is_not_repeated() -> None:
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        Time().retry(60.0).call("lease", "h:1", attempt)
    assert len(calls) == 1


def test_who_leaves_waits_two_seconds_for_a_server_and_no_longer() -> None:
    time, code = Time(), grpc.StatusCode.UNAVAILABLE
    retry = Retry(60.0, time.sleep, time.clock, time.longest, is_leaving=lambda: True)

    with pytest.raises(ServerUnreachableError):
        retry.call("lease", "h:1", failing(99, code, []))

    assert 2.0 <= time.now - 100.0 < 4.0


def test_waits_are_drawn_from_zero_to_a_doubling_bound_of_at_most_two_seconds() -> None:
    time = Time()

    time.retry(1000.0).call("lease", "h:1", failing(20, grpc.StatusCode.UNAVAILABLE, []))

    expected = [min(2.0, 0.05 * 2**number) for number in range(20)]
    assert time.bounds == [(0.0, high) for high in expected]


def test_the_wait_starts_anew_with_each_call() -> None:
    time = Time()
    retry = time.retry(1000.0)

    for _ in range(2):
        retry.call("lease", "h:1", failing(2, grpc.StatusCode.UNAVAILABLE, []))

    assert [high for _, high in time.bounds] == [0.05, 0.1, 0.05, 0.1]


def test_it_gives_up_after_orphan_s_with_a_sentence() -> None:
    time, calls = Time(), []

    with pytest.raises(ServerUnreachableError) as caught:
        time.retry(30.0).call("lease", "h:1", failing(999, grpc.StatusCode.UNAVAILABLE, calls))

    assert 130.0 <= time.now <= 132.0
    assert str(caught.value).startswith("lease: no answer from the server at h:1 for 3")
    assert str(caught.value).endswith("s (the details). Is it running, and is the address right?")


def test_without_patience_it_tries_once() -> None:
    calls: list[int] = []

    with pytest.raises(ServerUnreachableError):
        Time().retry(0.0).call("s", "h:1", failing(9, grpc.StatusCode.UNAVAILABLE, calls))

    assert len(calls) == 1


@pytest.mark.parametrize("target", ["", "host", "host:", ":50051", "host:port", "h:99999"])
def test_a_malformed_server_address_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="required HOST:PORT") as caught:
        Address.of_files(target)

    assert repr(target) in str(caught.value)


def test_a_missing_authority_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pem' cannot be read"):
        Address.of_files("h:1", tls_ca=tmp_path / "none.pem")
