"""The gRPC server of one worker, in its event loop."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read at import; its log lines have another form

import grpc.aio

from halfcore.log import logger
from halfcore.models.served import Models
from halfcore.predict.predictor import Predictor
from halfcore.rpc.service import Accepted, handlers

QUIET_S = 0.1
"""Seconds without a new call after which none is waiting to be accepted."""
LONGEST_SETTLING_S = 2.0
"""Seconds; clients that go on calling do not hold up the end."""
_IDENTITY = 1
"""The set of compression algorithms that holds none."""


@asynccontextmanager
async def serving(
    predictor: Predictor,
    models: Models,
    *,
    address: str,
    idle_timeout_s: float,
    drain_s: float,
    tls: tuple[str, str],
) -> AsyncIterator[None]:
    """Serve while the block runs; then answer the calls that have arrived, and accept no more.

    Args:
        predictor: answers predictions; its reader's limits are those of the messages.
        models: the served models.
        address: HOST:PORT to listen on; the workers share the port.
        idle_timeout_s: seconds until a connection without calls is closed.
        drain_s: longest wait for the accepted calls, seconds.
        tls: the files of the certificate chain and of its key; empty: no TLS.

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
    accepted = Accepted()
    server.add_generic_rpc_handlers(handlers(predictor, models, accepted))
    try:
        if not tls[0]:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, _credentials(*tls))
    except RuntimeError:
        raise OSError(f"gRPC cannot listen on {address}; choose another grpc_port") from None
    await server.start()
    logger.info("gRPC on %s", address)
    try:
        yield
    finally:
        await settle(accepted)
        await server.stop(drain_s)


async def settle(accepted: Accepted) -> None:
    """Wait until every call that has arrived is accepted: gRPC accepts one after another, and its
    end cancels those that wait."""
    clock = asyncio.get_running_loop().time
    end = clock() + LONGEST_SETTLING_S
    before = -1
    while accepted.count != before and clock() < end:
        before = accepted.count
        await asyncio.sleep(QUIET_S)


def _credentials(chain: str, key: str) -> grpc.ServerCredentials:
    """Of a server whose certificate chain and key are in these files."""
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(chain).read_bytes())])
