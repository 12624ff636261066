"""The gRPC server of one worker, in its event loop."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read at import; its log lines have another form

import grpc.aio

from halfcore.log import logger
from halfcore.models.served import Models
from halfcore.predict.predictor import Predictor
from halfcore.rpc.service import handlers

_IDENTITY = 1
"""The set of compression algorithms that holds none."""


@asynccontextmanager
async def serving(
    predictor: Predictor, models: Models, *, address: str, idle_timeout_s: float, drain_s: float
) -> AsyncIterator[None]:
    """Serve while the block runs; then accept no more, and wait for the accepted calls.

    Args:
        predictor: answers predictions; its reader's limits are those of the messages.
        models: the served models.
        address: HOST:PORT to listen on; the workers share the port.
        idle_timeout_s: seconds until a connection without calls is closed.
        drain_s: longest wait for the accepted calls, seconds.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", predictor.reader.max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_connection_idle_ms", int(idle_timeout_s * 1000)),
            # gRPC checks a message's length before it decompresses it: none is decompressed.
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY),
            ("grpc.per_message_decompression", 0),
        ]
    )
    server.add_generic_rpc_handlers(handlers(predictor, models))
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"gRPC cannot listen on {address}; choose another grpc_port") from None
    await server.start()
    logger.info("gRPC on %s", address)
    try:
        yield
    finally:
        await server.stop(drain_s)
