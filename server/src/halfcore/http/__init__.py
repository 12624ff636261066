"""Protocols in and out: RSGI for predictions, and the Litestar app, which has every route and is
complete under any ASGI server."""
