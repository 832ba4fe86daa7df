"""Finds the domains: the folders of city_assets, and of CITY_EXTRA_DOMAINS.

No list of the domains is kept anywhere.
"""

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
    """A domain: the name of its folder, and the contracts that its contract.py declares."""

    name: str
    contracts: tuple[Contract, ...]

    def module(self, file: str) -> ModuleType | None:
        """Imports the domain's `file`.py. Returns None where it has none."""
        return _import_if_present(f"{PACKAGE}.{self.name}.{file}")

    @property
    def has_simulator(self) -> bool:
        """Whether simulators/ has a module of the domain's name. Does not import it."""
        return importlib.util.find_spec(f"{SIMULATORS}.{self.name}") is not None

    def simulator(self) -> ModuleType | None:
        """Imports the module of the domain's name in simulators/. Returns None where there is none."""
        return _import_if_present(f"{SIMULATORS}.{self.name}")

    @property
    def has_sampled_history(self) -> bool:
        """Whether the simulator makes fewer events of the past than of the present.

        Then neither the number of past events nor what counts them is usual for live ones. Imports the simulator.
        """
        return bool(getattr(self.simulator(), "HISTORY_IS_SAMPLED", False))


def domains(config: Settings | None = None) -> list[Domain]:
    """Lists every domain, sorted by name. Raises ContractError when two contracts share a name or a topic."""
    package = importlib.import_module(PACKAGE)
    for folder in (config or settings()).extra_domains:
        if str(folder) not in package.__path__:
            package.__path__.append(str(folder))
            importlib.invalidate_caches()
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg)
    all_domains = []
    for name in names:
        if importlib.util.find_spec(f"{PACKAGE}.{name}.contract"):
            contract_module = _import_contract(f"{PACKAGE}.{name}.contract")
            all_domains.append(Domain(name, tuple(contract_module.CONTRACTS)))
    _check_unique([contract for domain in all_domains for contract in domain.contracts])
    return all_domains


def _import_contract(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except TypeError as error:  # a declaration of another release: see "Add a domain" in README.md
        raise ContractError(
            f"{name} cannot be imported: {error}. Declarations have `description=` since this release, which was "
            "`means=`"
        ) from error


def contracts(config: Settings | None = None) -> list[Contract]:
    """Lists the contracts of every domain. Raises ContractError as `domains` does."""
    return [contract for domain in domains(config) for contract in domain.contracts]


def streamed(config: Settings) -> list[Contract]:
    """Lists the contracts of the active domains that the stream processes: those of a high rate."""
    return [c for d in domains(config) if config.is_active(d.name) for c in d.contracts if c.rate == "high"]


def modules(config: Settings, file: str) -> list[ModuleType]:
    """Imports the `file`.py of every active domain that has one."""
    candidates = (domain.module(file) for domain in domains(config) if config.is_active(domain.name))
    return [module for module in candidates if module is not None]


def domain_of(name: str) -> Domain:
    """Returns the domain of that name. Raises ContractError that lists the known domains."""
    all_domains = domains()
    for domain in all_domains:
        if domain.name == name:
            return domain
    raise ContractError(f"no domain {name!r}; known: {', '.join(d.name for d in all_domains)}")


def domain_with(contract: Contract) -> Domain:
    """Returns the domain of a contract. Raises ContractError where no domain has it."""
    for domain in domains():
        if any(other.name == contract.name for other in domain.contracts):
            return domain
    raise ContractError(f"no domain has the contract {contract.name!r}")


def contract_of(name: str) -> Contract:
    """Returns the contract of that name or topic. Raises ContractError that lists the known contracts."""
    all_contracts = contracts()
    for contract in all_contracts:
        if name in (contract.name, contract.topic):
            return contract
    raise ContractError(f"no contract {name!r}; known: {', '.join(c.name for c in all_contracts)}")


def _import_if_present(name: str) -> ModuleType | None:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _check_unique(all_contracts: list[Contract]) -> None:
    tables = [contract.name for contract in all_contracts] + [
        w.name for contract in all_contracts for w in contract.windows
    ]
    for what, names in (("table", tables), ("topic", [contract.topic for contract in all_contracts])):
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ContractError(f"{what} {duplicates[0]!r} is declared by two contracts: rename one of them")


def check_unknown_ids(config: Settings) -> None:
    """Raises ContractError for a contract in CITY_UNKNOWN_IDS that refers to no other."""
    referring = sorted(contract.name for contract in contracts() if contract.references)
    if wrong := sorted(set(config.unknown_ids) - set(referring)):
        known = ", ".join(referring)
        raise ContractError(f"CITY_UNKNOWN_IDS names {', '.join(wrong)}; contracts with references: {known}")
