from dmaml.v1 import meta_model_pb2 as _meta_model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ("include_config",)
    INCLUDE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    include_config: bool
    def __init__(self, include_config: _Optional[bool] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("every_s",)
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    every_s: float
    def __init__(self, every_s: _Optional[float] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointReply(_message.Message):
    __slots__ = ("version", "round", "theta_sha256")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    THETA_SHA256_FIELD_NUMBER: _ClassVar[int]
    version: int
    round: int
    theta_sha256: str
    def __init__(self, version: _Optional[int] = ..., round: _Optional[int] = ..., theta_sha256: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker_id", "host", "leases", "contributions", "idle_s")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    host: str
    leases: int
    contributions: int
    idle_s: float
    def __init__(self, worker_id: _Optional[str] = ..., host: _Optional[str] = ..., leases: _Optional[int] = ..., contributions: _Optional[int] = ..., idle_s: _Optional[float] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("state", "message", "name", "identity", "epoch", "round", "version", "rounds", "tasks_seen", "durable_round", "theta_sha256", "query_loss", "metrics", "tasks_per_s", "workers", "config_json", "validation", "uptime_s", "run_dir", "software_version", "trained", "has_diverged")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ValidationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TASKS_SEEN_FIELD_NUMBER: _ClassVar[int]
    DURABLE_ROUND_FIELD_NUMBER: _ClassVar[int]
    THETA_SHA256_FIELD_NUMBER: _ClassVar[int]
    QUERY_LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TASKS_PER_S_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    RUN_DIR_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    HAS_DIVERGED_FIELD_NUMBER: _ClassVar[int]
    state: _meta_model_pb2.RunState
    message: str
    name: str
    identity: str
    epoch: int
    round: int
    version: int
    rounds: int
    tasks_seen: int
    durable_round: int
    theta_sha256: str
    query_loss: float
    metrics: _containers.ScalarMap[str, float]
    tasks_per_s: float
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    config_json: str
    validation: _containers.ScalarMap[str, float]
    uptime_s: float
    run_dir: str
    software_version: str
    trained: int
    has_diverged: bool
    def __init__(self, state: _Optional[_Union[_meta_model_pb2.RunState, str]] = ..., message: _Optional[str] = ..., name: _Optional[str] = ..., identity: _Optional[str] = ..., epoch: _Optional[int] = ..., round: _Optional[int] = ..., version: _Optional[int] = ..., rounds: _Optional[int] = ..., tasks_seen: _Optional[int] = ..., durable_round: _Optional[int] = ..., theta_sha256: _Optional[str] = ..., query_loss: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., tasks_per_s: _Optional[float] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., config_json: _Optional[str] = ..., validation: _Optional[_Mapping[str, float]] = ..., uptime_s: _Optional[float] = ..., run_dir: _Optional[str] = ..., software_version: _Optional[str] = ..., trained: _Optional[int] = ..., has_diverged: _Optional[bool] = ...) -> None: ...
