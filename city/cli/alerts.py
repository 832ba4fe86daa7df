"""city alerts: what is wrong with the data, and who looks after it."""

import getpass
from datetime import datetime, timedelta
from typing import Annotated

import typer

app = typer.Typer(help="Alarms: list, acknowledge, assign, clear, silence.", no_args_is_help=True)
_Number = Annotated[int, typer.Argument(help="the alarm's number")]
_Note = Annotated[str, typer.Option(help="why")]
_By = Annotated[str, typer.Option(help="who", show_default="the user")]


def _user() -> str:
    return getpass.getuser()


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="closed ones too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Open alarms, the gravest first."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    found = _desk().alarms(closed=every)
    if as_json:
        print(json.dumps([asdict(alarm) | {"state": alarm.state} for alarm in found], default=str))
        return
    table = Table("id", "severity", "state", "what", "times", "since", "last", "assignee", box=None)
    for a in found:
        state = a.state + (", flapping" if a.flapping else "") + (", silenced" if a.silenced else "")
        table.add_row(
            str(a.id), a.severity, state, a.title, str(a.count), _at(a.first_at), _at(a.last_at), a.assignee or ""
        )
    Console().print(table if found else "no alarms")
    for failure in _desk().failures():
        Console().print(f"not sent after {failure['attempts']} attempts: {failure['error']}", style="yellow")


@app.command()
def ack(number: _Number, note: _Note = "", by: _By = "") -> None:
    """Acknowledge: somebody has seen it."""
    print(_desk().acknowledge(number, by or _user(), note).state)


@app.command()
def assign(number: _Number, to: Annotated[str, typer.Argument(help="who looks after it")], by: _By = "") -> None:
    """Give an alarm to somebody."""
    print(f"alarm {number} is {_desk().assign(number, to, by or _user()).assignee}'s")


@app.command()
def clear(number: _Number, note: _Note = "", by: _By = "") -> None:
    """Clear by hand; should it still be wrong, the next look raises it again."""
    print(_desk().clear(number, by or _user(), note).state)


@app.command()
def silence(
    pattern: Annotated[str, typer.Argument(help="of causes, such as 'check/gold/*'")],
    hours: Annotated[float, typer.Option(help="for how long")] = 1.0,
    note: _Note = "",
    by: _By = "",
) -> None:
    """Send no messages for the causes that match; alarms are still kept."""
    number = _desk().silence(pattern, timedelta(hours=hours), by or _user(), note)
    print(f"silence {number}: {pattern} for {hours:g} hours")


@app.command()
def silences() -> None:
    """The silences in force."""
    for found in _desk().silences():
        print(f"{found['id']}: {found['pattern']} until {_at(found['until'])}", found["by"], found["note"] or "")


@app.command()
def unsilence(number: Annotated[int, typer.Argument(help="the silence's number")]) -> None:
    """End a silence."""
    _desk().unsilence(number)


@app.command()
def history(number: _Number) -> None:
    """All that happened to an alarm."""
    desk = _desk()
    print(f"{desk.alarm(number).cause}: {desk.alarm(number).title}")
    for entry in desk.history(number):
        print(f"{_at(entry['at'])}  {entry['event']}  {entry['by'] or ''}  {entry['note'] or ''}".rstrip())


def _desk():  # type: ignore[no-untyped-def]
    from city.alerts.desk import desk
    from city.settings import settings

    return desk(settings())


def _at(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
