"""The exception tree, and its one mapping to gRPC status."""

from __future__ import annotations

import pickle

import grpc
import pytest

from dmaml.common import errors
from dmaml.common.errors import (
    GRPC_STATUS,
    BadInputError,
    DmamlError,
    RunTimeError,
    UnknownNameError,
    error_of,
    status_of,
)


def classes(base: type[DmamlError]) -> list[type[DmamlError]]:
    """Return a class and all below it that the module defines."""
    below = [cls for child in base.__subclasses__() for cls in classes(child)]
    return [cls for cls in (base, *below) if cls.__module__ == errors.__name__]


def example(cls: type[DmamlError]) -> DmamlError:
    if cls is UnknownNameError:
        return UnknownNameError("weight generator", "medain", ("mean", "median"))
    return cls("a sentence")


LEAVES = [cls for cls in classes(DmamlError) if not cls.__subclasses__()]
RUN_TIME = [cls for cls in classes(RunTimeError) if cls is not RunTimeError]


def test_docstring_draws_the_whole_tree():
    for cls in classes(DmamlError):
        assert cls.__name__ in errors.__doc__


def test_table_holds_every_class_that_a_server_may_raise():
    assert set(GRPC_STATUS) == set(RUN_TIME)
    assert len(set(GRPC_STATUS.values())) == len(GRPC_STATUS)


@pytest.mark.parametrize("cls", RUN_TIME)
def test_error_crosses_the_wire_and_comes_back_as_itself(cls):
    status = status_of(cls("a sentence"))

    back = error_of(status, "a sentence")

    assert getattr(grpc.StatusCode, status) is not grpc.StatusCode.OK
    assert type(back) is cls
    assert str(back) == "a sentence"


def test_subclass_crosses_as_its_base():
    class OwnError(errors.CapacityError):
        """An error of a plug-in."""

    assert status_of(OwnError("x")) == "RESOURCE_EXHAUSTED"


def test_error_without_a_status_is_internal():
    assert status_of(errors.ConfigError("x")) == "INTERNAL"


def test_deadline_means_that_the_server_cannot_be_reached():
    error = error_of("DEADLINE_EXCEEDED", "too late")

    assert type(error) is errors.ServerUnreachableError
    assert "DEADLINE_EXCEEDED" in str(error)


@pytest.mark.parametrize("cls", LEAVES)
def test_exit_code_is_2_for_what_the_user_can_mend_and_else_1(cls):
    assert example(cls).exit_code == (2 if issubclass(cls, BadInputError) else 1)


@pytest.mark.parametrize("cls", classes(DmamlError))
def test_error_survives_pickling(cls):
    error = example(cls)

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is cls
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__


def test_unknown_name_says_which_one_is_near_and_which_there_are():
    expected = "unknown weight generator 'medain'. Did you mean 'median'? Known: mean, median."

    assert str(example(UnknownNameError)) == expected
    assert "Did you mean" not in str(UnknownNameError("model", "xyz", ("conv4", "mlp")))
