"""city serve: serves the API and the dashboard."""


def command() -> None:
    """Serve predictions, the city's API and the dashboard; Ctrl-C stops it, and loses nothing."""
    import logging

    from city.server.app import server
    from city.settings import settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server(settings()).run()
