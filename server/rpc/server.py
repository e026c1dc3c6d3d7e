"""The gRPC server: services, limits, security."""

from __future__ import annotations

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dmaml.common import frames
from dmaml.common.errors import AddressError
from dmaml.server.rpc.auth import Security, TokenInterceptor
from dmaml.server.rpc.clustering import ClusteringService
from dmaml.server.rpc.control import ControlService
from dmaml.server.rpc.meta_model import MetaModelService
from dmaml.server.runner import Runner
from dmaml.v1 import clustering_pb2, control_pb2, meta_model_pb2
from dmaml.v1.clustering_pb2_grpc import add_ClusteringServicer_to_server
from dmaml.v1.control_pb2_grpc import add_ControlServicer_to_server
from dmaml.v1.meta_model_pb2_grpc import add_MetaModelServicer_to_server

SERVICES = (
    meta_model_pb2.DESCRIPTOR.services_by_name["MetaModel"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    clustering_pb2.DESCRIPTOR.services_by_name["Clustering"].full_name,
)
_OPTIONS = (
    ("grpc.max_receive_message_length", frames.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", frames.MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


async def serve(
    runner: Runner, listen: str, security: Security, with_reflection: bool
) -> tuple[aio.Server, int]:
    """Start serving on `host:port` (0: any free port) and return the server and its port.

    Raises:
        AddressError: the address is taken, malformed, or may not be listened on.
    """
    security.check(listen)
    token, credentials = security.token(), security.credentials()
    interceptors = [TokenInterceptor(token)] if token is not None else []
    server = aio.server(interceptors=interceptors, options=_OPTIONS)
    add_MetaModelServicer_to_server(MetaModelService(runner), server)
    add_ControlServicer_to_server(ControlService(runner), server)
    add_ClusteringServicer_to_server(ClusteringService(runner), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    if with_reflection:
        from grpc_reflection.v1alpha import reflection

        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    try:
        port = (
            server.add_insecure_port(listen)
            if credentials is None
            else server.add_secure_port(listen, credentials)
        )
    except RuntimeError as error:
        raise AddressError(
            f"cannot listen on {listen!r}: the port is in use or the address is not this "
            "machine's. Stop the other program, or give another --listen."
        ) from error
    await server.start()
    return server, port
