"""city docs: writes the generated pages of docs/."""


def command() -> None:
    """Write docs/contracts.md and the JSON Schemas in docs/schemas/ from the contracts."""
    from city.contracts.publish import write
    from city.settings import CHECKOUT

    for path in write(CHECKOUT / "docs"):
        print(path.relative_to(CHECKOUT))
