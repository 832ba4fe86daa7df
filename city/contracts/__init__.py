"""Contracts, and everything that is derived from one.

A domain's contract.py imports everything it needs from here.
"""

from city.contracts.identifier import IDENTIFIER
from city.contracts.model import (
    MACHINE_ZONE,
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
    "IDENTIFIER",
    "MACHINE_ZONE",
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
