"""The `city` command. Each module of this package with a function `command` is a subcommand, and each module with an
`app` is a group of subcommands. A DomainGroup takes its subcommands from the domains. A module's class `Command`
replaces Typer's class for the subcommand."""

import importlib
import pkgutil
import sys

import typer
from typer.core import TyperCommand

import city.cli

app = typer.Typer(
    help="A city's real-time data and machine learning on one platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_HIDDEN = {"bridge"}

for _name in sorted(info.name for info in pkgutil.iter_modules(city.cli.__path__)):
    if _name not in ("main", "errors", "domain_group"):
        _module = importlib.import_module(f"city.cli.{_name}")
        if hasattr(_module, "app"):
            app.add_typer(_module.app, name=_name)
        elif hasattr(_module, "command"):
            _class = getattr(_module, "Command", TyperCommand)
            app.command(_name, cls=_class, hidden=_name in _HIDDEN)(_module.command)


def main() -> None:
    """Runs the command. An error that the user can fix is printed in one line, with the exit code 1."""
    from city.cli.errors import explain

    try:
        app()
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        print(f"city: {text}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
