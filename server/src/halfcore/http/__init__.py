"""The protocols: RSGI for predictions, and the Litestar app, which has every route and works under
any ASGI server."""
