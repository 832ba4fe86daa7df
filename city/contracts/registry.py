"""Finds the domains: the folders of city_assets (and of CITY_EXTRA_DOMAINS), none of them listed anywhere."""

import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from types import ModuleType

from city.contracts.model import Contract, ContractError
from city.settings import Settings, settings

PACKAGE = "city_assets"
SIMULATORS = "simulators"


@dataclass(frozen=True)
class Domain:
    """A domain's folder: its name and the contracts that its contract.py declares."""

    name: str
    contracts: tuple[Contract, ...]

    def module(self, file: str) -> ModuleType | None:
        """The domain's `file`.py, or None where it has none."""
        return _module(f"{PACKAGE}.{self.name}.{file}")

    @property
    def has_simulator(self) -> bool:
        return importlib.util.find_spec(f"{SIMULATORS}.{self.name}") is not None

    def simulator(self) -> ModuleType | None:
        """The module of the domain's name in simulators/, or None."""
        return _module(f"{SIMULATORS}.{self.name}")


def domains(config: Settings | None = None) -> list[Domain]:
    """Every domain, by name. Raises ContractError when two contracts share a name or a topic."""
    package = importlib.import_module(PACKAGE)
    for folder in (config or settings()).extra_domains:
        if str(folder) not in package.__path__:
            package.__path__.append(str(folder))
            importlib.invalidate_caches()
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg)
    found = []
    for name in names:
        if importlib.util.find_spec(f"{PACKAGE}.{name}.contract"):
            declared = importlib.import_module(f"{PACKAGE}.{name}.contract")
            found.append(Domain(name, tuple(declared.CONTRACTS)))
    _check_unique([contract for domain in found for contract in domain.contracts])
    return found


def contracts(config: Settings | None = None) -> list[Contract]:
    return [contract for domain in domains(config) for contract in domain.contracts]


def modules(config: Settings, file: str) -> list[ModuleType]:
    """The `file`.py of every active domain that has one."""
    found = (domain.module(file) for domain in domains(config) if config.is_active(domain.name))
    return [module for module in found if module is not None]


def domain_of(name: str) -> Domain:
    """The domain of that name. Raises ContractError that lists the known ones."""
    found = domains()
    for domain in found:
        if domain.name == name:
            return domain
    raise ContractError(f"no domain {name!r}; known: {', '.join(d.name for d in found)}")


def contract_of(name: str) -> Contract:
    """The contract of that name or topic. Raises ContractError that lists the known ones."""
    found = contracts()
    for contract in found:
        if name in (contract.name, contract.topic):
            return contract
    raise ContractError(f"no contract {name!r}; known: {', '.join(c.name for c in found)}")


def _module(name: str) -> ModuleType | None:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _check_unique(found: list[Contract]) -> None:
    tables = [contract.name for contract in found] + [w.name for contract in found for w in contract.windows]
    for what, names in (("table", tables), ("topic", [contract.topic for contract in found])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ContractError(f"{what} {twice[0]!r} is declared by two contracts: rename one of them")
