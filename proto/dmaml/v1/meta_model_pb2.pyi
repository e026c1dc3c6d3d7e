from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ItemKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_KIND_UNSPECIFIED: _ClassVar[ItemKind]
    ITEM_KIND_INIT: _ClassVar[ItemKind]
    ITEM_KIND_TRAIN: _ClassVar[ItemKind]
    ITEM_KIND_PROBE: _ClassVar[ItemKind]
    ITEM_KIND_EVALUATE: _ClassVar[ItemKind]

class ProbeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROBE_KIND_UNSPECIFIED: _ClassVar[ProbeKind]
    PROBE_KIND_UNITS: _ClassVar[ProbeKind]
    PROBE_KIND_PIXELS: _ClassVar[ProbeKind]
    PROBE_KIND_EMBEDDING: _ClassVar[ProbeKind]
    PROBE_KIND_LOSSES: _ClassVar[ProbeKind]
    PROBE_KIND_SKETCHES: _ClassVar[ProbeKind]

class LeaseAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_ANSWER_UNSPECIFIED: _ClassVar[LeaseAnswer]
    LEASE_ANSWER_WORK: _ClassVar[LeaseAnswer]
    LEASE_ANSWER_WAIT: _ClassVar[LeaseAnswer]
    LEASE_ANSWER_DONE: _ClassVar[LeaseAnswer]

class WireDtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WIRE_DTYPE_UNSPECIFIED: _ClassVar[WireDtype]
    WIRE_DTYPE_FLOAT32: _ClassVar[WireDtype]
    WIRE_DTYPE_BFLOAT16: _ClassVar[WireDtype]
    WIRE_DTYPE_FLOAT16: _ClassVar[WireDtype]

class PushOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUSH_OUTCOME_UNSPECIFIED: _ClassVar[PushOutcome]
    PUSH_OUTCOME_COMMITTED: _ClassVar[PushOutcome]
    PUSH_OUTCOME_BUFFERED: _ClassVar[PushOutcome]
    PUSH_OUTCOME_DUPLICATE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_STALE_BASE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_STALE_EPOCH: _ClassVar[PushOutcome]
    PUSH_OUTCOME_STALE_LEASE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_LATE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_NON_FINITE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_NORM: _ClassVar[PushOutcome]
    PUSH_OUTCOME_SHAPE: _ClassVar[PushOutcome]
    PUSH_OUTCOME_CHECKSUM: _ClassVar[PushOutcome]
    PUSH_OUTCOME_QUOTA: _ClassVar[PushOutcome]
    PUSH_OUTCOME_PAUSED: _ClassVar[PushOutcome]

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_EMPTY: _ClassVar[RunState]
    RUN_STATE_INIT: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_DRAINING: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
ITEM_KIND_UNSPECIFIED: ItemKind
ITEM_KIND_INIT: ItemKind
ITEM_KIND_TRAIN: ItemKind
ITEM_KIND_PROBE: ItemKind
ITEM_KIND_EVALUATE: ItemKind
PROBE_KIND_UNSPECIFIED: ProbeKind
PROBE_KIND_UNITS: ProbeKind
PROBE_KIND_PIXELS: ProbeKind
PROBE_KIND_EMBEDDING: ProbeKind
PROBE_KIND_LOSSES: ProbeKind
PROBE_KIND_SKETCHES: ProbeKind
LEASE_ANSWER_UNSPECIFIED: LeaseAnswer
LEASE_ANSWER_WORK: LeaseAnswer
LEASE_ANSWER_WAIT: LeaseAnswer
LEASE_ANSWER_DONE: LeaseAnswer
WIRE_DTYPE_UNSPECIFIED: WireDtype
WIRE_DTYPE_FLOAT32: WireDtype
WIRE_DTYPE_BFLOAT16: WireDtype
WIRE_DTYPE_FLOAT16: WireDtype
PUSH_OUTCOME_UNSPECIFIED: PushOutcome
PUSH_OUTCOME_COMMITTED: PushOutcome
PUSH_OUTCOME_BUFFERED: PushOutcome
PUSH_OUTCOME_DUPLICATE: PushOutcome
PUSH_OUTCOME_STALE_BASE: PushOutcome
PUSH_OUTCOME_STALE_EPOCH: PushOutcome
PUSH_OUTCOME_STALE_LEASE: PushOutcome
PUSH_OUTCOME_LATE: PushOutcome
PUSH_OUTCOME_NON_FINITE: PushOutcome
PUSH_OUTCOME_NORM: PushOutcome
PUSH_OUTCOME_SHAPE: PushOutcome
PUSH_OUTCOME_CHECKSUM: PushOutcome
PUSH_OUTCOME_QUOTA: PushOutcome
PUSH_OUTCOME_PAUSED: PushOutcome
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_EMPTY: RunState
RUN_STATE_INIT: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_DRAINING: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_FAILED: RunState

class WorkItem(_message.Message):
    __slots__ = ("kind", "round", "pipeline", "slot", "part", "index", "base_version", "gamma_version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: ItemKind
    round: int
    pipeline: int
    slot: int
    part: int
    index: int
    base_version: int
    gamma_version: int
    def __init__(self, kind: _Optional[_Union[ItemKind, str]] = ..., round: _Optional[int] = ..., pipeline: _Optional[int] = ..., slot: _Optional[int] = ..., part: _Optional[int] = ..., index: _Optional[int] = ..., base_version: _Optional[int] = ..., gamma_version: _Optional[int] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("epoch", "counter")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    counter: int
    def __init__(self, epoch: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("tensors", "schema_hash")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    schema_hash: str
    def __init__(self, tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., schema_hash: _Optional[str] = ...) -> None: ...

class Fingerprint(_message.Message):
    __slots__ = ("entries", "data_digest")
    class EntriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DATA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.ScalarMap[str, str]
    data_digest: str
    def __init__(self, entries: _Optional[_Mapping[str, str]] = ..., data_digest: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("incarnation", "identity", "protocol_version", "software_version", "host", "fingerprint", "held")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    identity: str
    protocol_version: int
    software_version: str
    host: str
    fingerprint: Fingerprint
    held: _containers.RepeatedCompositeFieldContainer[WorkItem]
    def __init__(self, incarnation: _Optional[str] = ..., identity: _Optional[str] = ..., protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., host: _Optional[str] = ..., fingerprint: _Optional[_Union[Fingerprint, _Mapping]] = ..., held: _Optional[_Iterable[_Union[WorkItem, _Mapping]]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("worker_id", "epoch", "renew_every_s", "session_s", "max_unary_bytes", "max_chunk_bytes")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RENEW_EVERY_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_S_FIELD_NUMBER: _ClassVar[int]
    MAX_UNARY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: int
    renew_every_s: float
    session_s: float
    max_unary_bytes: int
    max_chunk_bytes: int
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[int] = ..., renew_every_s: _Optional[float] = ..., session_s: _Optional[float] = ..., max_unary_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("worker_id", "epoch")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: int
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("state", "durable_round")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DURABLE_ROUND_FIELD_NUMBER: _ClassVar[int]
    state: RunState
    durable_round: int
    def __init__(self, state: _Optional[_Union[RunState, str]] = ..., durable_round: _Optional[int] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("worker_id", "epoch", "reason")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: int
    reason: str
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("worker_id", "epoch", "request_id", "wait_s", "held", "digests", "schema_hash")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: int
    request_id: str
    wait_s: float
    held: _containers.RepeatedCompositeFieldContainer[WorkItem]
    digests: _containers.RepeatedScalarFieldContainer[str]
    schema_hash: str
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[int] = ..., request_id: _Optional[str] = ..., wait_s: _Optional[float] = ..., held: _Optional[_Iterable[_Union[WorkItem, _Mapping]]] = ..., digests: _Optional[_Iterable[str]] = ..., schema_hash: _Optional[str] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("item", "token", "valid_s", "base_digest", "gamma_version", "hint", "parameters", "data", "probe")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    item: WorkItem
    token: Token
    valid_s: float
    base_digest: str
    gamma_version: int
    hint: WorkItem
    parameters: PullHeader
    data: bytes
    probe: Probe
    def __init__(self, item: _Optional[_Union[WorkItem, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., valid_s: _Optional[float] = ..., base_digest: _Optional[str] = ..., gamma_version: _Optional[int] = ..., hint: _Optional[_Union[WorkItem, _Mapping]] = ..., parameters: _Optional[_Union[PullHeader, _Mapping]] = ..., data: _Optional[bytes] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("kind", "pipeline", "samples", "tasks", "dims")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    kind: ProbeKind
    pipeline: int
    samples: int
    tasks: int
    dims: int
    def __init__(self, kind: _Optional[_Union[ProbeKind, str]] = ..., pipeline: _Optional[int] = ..., samples: _Optional[int] = ..., tasks: _Optional[int] = ..., dims: _Optional[int] = ...) -> None: ...

class ObservationHeader(_message.Message):
    __slots__ = ("num_units", "units", "num_columns")
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    NUM_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    num_units: int
    units: _containers.RepeatedScalarFieldContainer[int]
    num_columns: int
    def __init__(self, num_units: _Optional[int] = ..., units: _Optional[_Iterable[int]] = ..., num_columns: _Optional[int] = ...) -> None: ...

class LeaseReply(_message.Message):
    __slots__ = ("answer", "lease", "state", "durable_round")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DURABLE_ROUND_FIELD_NUMBER: _ClassVar[int]
    answer: LeaseAnswer
    lease: Lease
    state: RunState
    durable_round: int
    def __init__(self, answer: _Optional[_Union[LeaseAnswer, str]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., state: _Optional[_Union[RunState, str]] = ..., durable_round: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("worker_id", "epoch", "pipeline", "version", "schema_hash")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: int
    pipeline: int
    version: int
    schema_hash: str
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[int] = ..., pipeline: _Optional[int] = ..., version: _Optional[int] = ..., schema_hash: _Optional[str] = ...) -> None: ...

class PullHeader(_message.Message):
    __slots__ = ("version", "digest", "layout", "num_bytes", "crc32")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    layout: Layout
    num_bytes: int
    crc32: int
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., num_bytes: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class PullReply(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: PullHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[PullHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("wait_s", "pull_s", "sample_s", "compute_s", "computed_at")
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    PULL_S_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_AT_FIELD_NUMBER: _ClassVar[int]
    wait_s: float
    pull_s: float
    sample_s: float
    compute_s: float
    computed_at: float
    def __init__(self, wait_s: _Optional[float] = ..., pull_s: _Optional[float] = ..., sample_s: _Optional[float] = ..., compute_s: _Optional[float] = ..., computed_at: _Optional[float] = ...) -> None: ...

class MetricTable(_message.Message):
    __slots__ = ("name", "num_tasks", "num_columns", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_TASKS_FIELD_NUMBER: _ClassVar[int]
    NUM_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_tasks: int
    num_columns: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., num_tasks: _Optional[int] = ..., num_columns: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class PushHeader(_message.Message):
    __slots__ = ("worker_id", "item", "token", "base_digest", "gamma_version", "loss", "norm", "num_tasks", "dtype", "num_elements", "num_bytes", "crc32", "layout", "metrics", "tables", "timings", "observation")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GAMMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    NUM_TASKS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    NUM_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    item: WorkItem
    token: Token
    base_digest: str
    gamma_version: int
    loss: float
    norm: float
    num_tasks: int
    dtype: WireDtype
    num_elements: int
    num_bytes: int
    crc32: int
    layout: Layout
    metrics: _containers.ScalarMap[str, float]
    tables: _containers.RepeatedCompositeFieldContainer[MetricTable]
    timings: Timings
    observation: ObservationHeader
    def __init__(self, worker_id: _Optional[str] = ..., item: _Optional[_Union[WorkItem, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., base_digest: _Optional[str] = ..., gamma_version: _Optional[int] = ..., loss: _Optional[float] = ..., norm: _Optional[float] = ..., num_tasks: _Optional[int] = ..., dtype: _Optional[_Union[WireDtype, str]] = ..., num_elements: _Optional[int] = ..., num_bytes: _Optional[int] = ..., crc32: _Optional[int] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., tables: _Optional[_Iterable[_Union[MetricTable, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., observation: _Optional[_Union[ObservationHeader, _Mapping]] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("header", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: PushHeader
    payload: bytes
    def __init__(self, header: _Optional[_Union[PushHeader, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class PushChunk(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: PushHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[PushHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("outcome", "message", "server_version")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    outcome: PushOutcome
    message: str
    server_version: int
    def __init__(self, outcome: _Optional[_Union[PushOutcome, str]] = ..., message: _Optional[str] = ..., server_version: _Optional[int] = ...) -> None: ...
