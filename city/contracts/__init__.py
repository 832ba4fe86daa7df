"""What a contract is, and all that is derived from one. Import everything a contract.py needs from here."""

from city.contracts.model import (
    Aggregate,
    Contract,
    ContractError,
    Count,
    Distinct,
    Field,
    H3Cell,
    Mean,
    Quantities,
    Quantity,
    Reference,
    Rule,
    Std,
    Window,
)

__all__ = [
    "Aggregate",
    "Contract",
    "ContractError",
    "Count",
    "Distinct",
    "Field",
    "H3Cell",
    "Mean",
    "Quantities",
    "Quantity",
    "Reference",
    "Rule",
    "Std",
    "Window",
]
