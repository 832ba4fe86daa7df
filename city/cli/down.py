"""city down: stops what `city up` started."""


def command() -> None:
    """Stop everything that `city up` started, and nothing else."""
    from city.settings import settings
    from city.stack import console

    console.down(settings())
