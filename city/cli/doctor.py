"""city doctor: checks whether this machine is ready."""

import typer


def command() -> None:
    """Check Python, Java, jars, ports, memory and disk, and say how to fix each problem."""
    from city.settings import settings
    from city.stack.doctor import examine

    findings = examine(settings())
    for finding in findings:
        print(f"{'ok ' if finding.ok else 'BAD'} {finding.what}: {finding.actual}")
        if not finding.ok:
            print(f"    {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
