"""city alerts: lists alarms, changes their state, and manages silences and unsent messages."""

import getpass
from datetime import timedelta
from typing import Annotated

import typer

app = typer.Typer(help="Alarms: list, acknowledge, assign, clear, silence; drop messages.", no_args_is_help=True)
_Number = Annotated[int, typer.Argument(help="the alarm's number")]
_Note = Annotated[str, typer.Option(help="why")]
_By = Annotated[str, typer.Option(help="who", show_default="the user")]


def _user() -> str:
    return getpass.getuser()


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="list closed alarms too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List open alarms, the most severe first."""
    import json
    from dataclasses import asdict

    from city.alerts.listing import show, unsent_line
    from city.stack.terminal import Terminal

    store = _store()
    alarms = store.alarms(closed=every)
    if as_json:
        print(json.dumps([asdict(alarm) | {"state": alarm.state} for alarm in alarms], default=str))
        return
    terminal = Terminal()
    show(alarms, terminal)
    for channel in store.outbox.unsent():
        terminal.print(unsent_line(channel), style="yellow", soft_wrap=True, highlight=False)


@app.command()
def ack(number: _Number, note: _Note = "", by: _By = "") -> None:
    """Acknowledge an alarm: a person has seen it."""
    print(_store().acknowledge(number, by or _user(), note).state)


@app.command()
def assign(
    number: _Number, to: Annotated[str, typer.Argument(help="the person who is responsible for it")], by: _By = ""
) -> None:
    """Assign an alarm to a person."""
    print(f"alarm {number} is {_store().assign(number, to, by or _user()).assignee}'s")


@app.command()
def clear(number: _Number, note: _Note = "", by: _By = "") -> None:
    """Clear an alarm by hand. If its cause lasts, the next check raises it again."""
    print(_store().clear(number, by or _user(), note).state)


@app.command()
def silence(
    pattern: Annotated[str, typer.Argument(help="a pattern of causes, such as 'check/gold/*'")],
    hours: Annotated[float, typer.Option(help="the hours that the silence lasts")] = 1.0,
    note: _Note = "",
    by: _By = "",
) -> None:
    """Send no messages for causes that match the pattern. Alarms are still recorded."""
    from city.alerts.model import AlertError
    from city.alerts.rows import matches
    from city.alerts.store import LONGEST_SILENCE

    most = LONGEST_SILENCE / timedelta(hours=1)
    if not 0 < hours <= most:  # also true for nan
        raise AlertError(f"--hours {hours:g}: a silence lasts more than 0 and at most {most:g} hours, a year")
    store = _store()
    number = store.silence(pattern, timedelta(hours=hours), by or _user(), note)
    print(f"silence {number}: {pattern} for {hours:g} hours")
    if not any(matches(alarm.cause, pattern) for alarm in store.alarms()):
        print("it matches the cause of no alarm that is open now; `city alerts list` shows their causes")


@app.command()
def silences() -> None:
    """List the silences in force."""
    from city.alerts.listing import format_time
    from city.stack.terminal import one_line

    for entry in _store().silences():
        by, note = one_line(entry["by"] or ""), one_line(entry["note"] or "")
        print(f"{entry['id']}: {one_line(entry['pattern'])} until {format_time(entry['until'])} {by} {note}".rstrip())


@app.command()
def unsilence(number: Annotated[int, typer.Argument(help="the silence's number")]) -> None:
    """End a silence."""
    _store().unsilence(number)


@app.command()
def drop(
    channel: Annotated[str, typer.Argument(help="the channel, such as email")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    by: _By = "",
) -> None:
    """Delete the messages that a channel has not accepted. The history of their alarms records this."""
    from city.alerts.listing import unsent_line

    store = _store()
    for backlog in store.outbox.unsent():
        if backlog.name == channel and not yes:
            print(unsent_line(backlog))
            typer.confirm("delete them? Nobody gets them then", abort=True)
    print(f"{store.outbox.drop(channel, by or _user())} message(s) to {channel} are deleted")


@app.command()
def history(number: _Number) -> None:
    """Show an alarm's history."""
    from city.alerts.listing import format_time
    from city.stack.terminal import one_line

    store = _store()
    alarm = store.alarm(number)
    print(one_line(f"{alarm.cause}: {alarm.title}"))
    for entry in store.history(number):
        by, note = one_line(entry["by"] or ""), one_line(entry["note"] or "")
        print(f"{format_time(entry['at'])}  {entry['event']}  {by}  {note}".rstrip())


def _store():  # type: ignore[no-untyped-def]
    from city.alerts.store import alert_store
    from city.settings import settings

    return alert_store(settings())
