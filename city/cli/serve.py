"""city serve: serves the API and the dashboard."""


def command() -> None:
    """Serve predictions, the city's API and the dashboard; Ctrl-C stops the server without losing data."""
    import logging

    from city.lake.native_imports import refuse_pyarrow
    from city.server.app import server
    from city.settings import settings
    from city.stack.part import check_port

    config = settings()
    check_port(config.host, config.serve_port, "CITY_SERVE_PORT")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    refuse_pyarrow()
    server(config).run()
