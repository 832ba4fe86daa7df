"""Groups of subcommands that domains declare, such as `city data`."""

from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


class DomainGroup(TyperGroup):
    """A group with the subcommands `COMMANDS[group]` of each domain's commands.py: functions by name.

    The group may have subcommands of its own, too. Those of the domains are loaded when they are needed, because other
    commands import no domain.
    """

    _is_loaded = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Lists the names of the subcommands. Imports the domains."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the subcommand of that name, or None. Imports the domains, unless it is the group's own."""
        if cmd_name not in self.commands:
            self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        from city.contracts.model import ContractError
        from city.contracts.registry import domains

        if self._is_loaded:
            return
        app, owners = typer.Typer(), dict[str, str]()
        for domain in domains():
            module = domain.module("commands")
            for name, function in (module.COMMANDS.get(self.name, {}) if module else {}).items():
                if name in self.commands:
                    raise ContractError(
                        f"the domain {domain.name} declares the command city {self.name} {name}, which the platform "
                        "has: rename it"
                    )
                if owners.setdefault(name, domain.name) != domain.name:
                    both = f"{owners[name]} and {domain.name}"
                    raise ContractError(f"the domains {both} declare the command city {self.name} {name}: rename one")
                app.command(name)(function)
        self.commands.update(get_group(app).commands)
        self._is_loaded = True
