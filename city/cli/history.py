"""city history: makes the history of a city. Domains declare the subcommands that make it from recorded events."""

import os

import typer

from city.cli.domain_group import DomainGroup

app = typer.Typer(
    cls=DomainGroup,
    no_args_is_help=True,
    help="The history of a city: past events, tables and models, simulated or from recorded events.",
)


@app.command()
def run() -> None:
    """Make what is missing of the history. `city up` does this by itself."""
    from city.lake.native_imports import refuse_pyarrow
    from city.settings import settings
    from city.stack.history_plan import make_plan
    from city.stack.history_progress import Report
    from city.stack.home import check_folders
    from city_assets import history

    refuse_pyarrow()
    os.nice(10)  # people look at the live city meanwhile
    config = settings()
    check_folders(config.home)
    plan = make_plan(config)
    report = Report(config, plan.days)
    try:
        history.run(config, plan, lambda steps, done: report.write(history.describe(steps, done, plan)))
    except history.AlreadyRunning:
        raise  # the report is that of the other process
    except Exception as error:
        report.fail(error)
        raise


@app.command()
def status() -> None:
    """Show how much of the history is made, or why there is none."""
    from city.settings import settings
    from city.stack.history_plan import why_no_history
    from city.stack.history_progress import history_status
    from city.stack.history_view import describe_history
    from city.stack.terminal import Terminal

    config = settings()
    history, reason = history_status(config), why_no_history(config)
    if history is None:
        text = f"there is no history: {reason or 'the next `city up` with simulators makes it'}"
    elif history["state"] == "down" and reason:
        text = f"{history['percent']} % of {history['days']} days, and no start continues it: {reason}"
    else:
        text = describe_history(history)
    Terminal(soft_wrap=True).print(text)
