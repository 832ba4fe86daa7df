"""city schemas: checks and publishes the schemas of the contracts."""

import typer

app = typer.Typer(help="Check the contracts' schemas, and publish them.", no_args_is_help=True)


@app.command()
def check() -> None:
    """Compare each contract with its last released schema (docs/schemas), and list incompatible changes."""
    from city.contracts.compatibility import against_released
    from city.contracts.registry import contracts
    from city.settings import CHECKOUT

    breaks = [b for contract in contracts() for b in against_released(contract, CHECKOUT / "docs" / "schemas")]
    for change in breaks:
        print(change)
    if breaks:
        raise typer.Exit(1)
    print("every contract is compatible with its released schema")


@app.command()
def publish() -> None:
    """Register every contract's schema in the registry at CITY_SCHEMA_REGISTRY_URL."""
    from city.contracts.model import ContractError
    from city.contracts.registry import contracts
    from city.contracts.schema_registry import SchemaRegistry, subject_of
    from city.settings import settings

    config = settings()
    url, secret = config.schema_registry_url, config.schema_registry_password
    if url is None:
        raise ContractError("no schema registry: set CITY_SCHEMA_REGISTRY_URL; the schemas are in docs/schemas too")
    name = config.schema_registry_username
    login = (name, secret.get_secret_value() if secret else "") if name else None
    registry = SchemaRegistry(url, login, config.schema_registry_ca)
    for contract in contracts():
        print(f"{subject_of(contract)} v{contract.version}: id {registry.publish(contract)}")
