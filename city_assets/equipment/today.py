"""The facts about a day's machines: how many had a fault, and the causes."""

from datetime import date

from city.live.facts import WEEK, Fact, count_text, of_day
from city.settings import Settings
from city_assets.equipment.tables import MACHINE_FAULTS


def today(config: Settings, day: date) -> list[Fact]:
    """Returns the fact about a local day's machines with a fault, compared with the same day a week before."""
    current, previous = (
        of_day(config, MACHINE_FAULTS.id, local_day, "begin").collect() for local_day in (day, day - WEEK)
    )
    machines = current["machine_id"].n_unique()
    sentence = f"{count_text(machines, 'machine').capitalize()} had a fault"
    causes = current.drop_nulls("cause").group_by("cause").len().sort("len", "cause", descending=[True, False])
    if causes.height:
        sentence += ": " + ", ".join(f"{count} × {cause}" for cause, count in causes.rows())
    return [
        Fact(
            name="equipment",
            sentence=sentence + ".",
            label="Machines with a fault",
            value=machines,
            before=previous["machine_id"].n_unique() or None,
        )
    ]
