"""The composition root of the server: the ASGI app, its state, and the routes that all domains share."""
