from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RouteRequest(_message.Message):
    __slots__ = ("gamma_version",)
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    gamma_version: int
    def __init__(self, gamma_version: _Optional[int] = ...) -> None: ...

class RouteReply(_message.Message):
    __slots__ = ("gamma_version", "pipelines", "num_units", "gamma")
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    gamma_version: int
    pipelines: _containers.RepeatedScalarFieldContainer[int]
    num_units: int
    gamma: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, gamma_version: _Optional[int] = ..., pipelines: _Optional[_Iterable[int]] = ..., num_units: _Optional[int] = ..., gamma: _Optional[_Iterable[float]] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchGammaRequest(_message.Message):
    __slots__ = ("every_s",)
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    every_s: float
    def __init__(self, every_s: _Optional[float] = ...) -> None: ...

class PipelineState(_message.Message):
    __slots__ = ("pipeline", "parent", "opened_round", "active", "expected_units")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    OPENED_ROUND_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_UNITS_FIELD_NUMBER: _ClassVar[int]
    pipeline: int
    parent: int
    opened_round: int
    active: bool
    expected_units: float
    def __init__(self, pipeline: _Optional[int] = ..., parent: _Optional[int] = ..., opened_round: _Optional[int] = ..., active: _Optional[bool] = ..., expected_units: _Optional[float] = ...) -> None: ...

class GetStateReply(_message.Message):
    __slots__ = ("strategy", "gamma_version", "phase", "pipelines")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    gamma_version: int
    phase: str
    pipelines: _containers.RepeatedCompositeFieldContainer[PipelineState]
    def __init__(self, strategy: _Optional[str] = ..., gamma_version: _Optional[int] = ..., phase: _Optional[str] = ..., pipelines: _Optional[_Iterable[_Union[PipelineState, _Mapping]]] = ...) -> None: ...
