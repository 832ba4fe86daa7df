"""Groups of subcommands that domains declare, such as `city data`."""

from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


class DomainGroup(TyperGroup):
    """A group whose subcommands are `COMMANDS[group]` of each domain's commands.py: functions by name.

    They are loaded when the group is used, because other commands import no domain.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Lists the names of the subcommands. Imports the domains."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the subcommand of that name, or None. Imports the domains."""
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        from city.contracts.model import ContractError
        from city.contracts.registry import domains

        if self.commands:
            return
        app, owners = typer.Typer(), dict[str, str]()
        for domain in domains():
            module = domain.module("commands")
            for name, function in (module.COMMANDS.get(self.name, {}) if module else {}).items():
                if owners.setdefault(name, domain.name) != domain.name:
                    both = f"{owners[name]} and {domain.name}"
                    raise ContractError(f"the domains {both} declare the command city {self.name} {name}: rename one")
                app.command(name)(function)
        self.commands = get_group(app).commands
