"""The day's machines: which had faults, and of what kind."""

from datetime import date

from city.live.facts import WEEK, Fact, of_day, some
from city.settings import Settings
from city_assets.equipment.tables import MACHINE_FAULTS


def today(config: Settings, day: date) -> list[Fact]:
    now, then = (of_day(config, MACHINE_FAULTS.id, of, "begin").collect() for of in (day, day - WEEK))
    machines = now["machine_id"].n_unique()
    sentence = f"{some(machines, 'machine').capitalize()} had a fault"
    causes = now.drop_nulls("cause").group_by("cause").len().sort("len", "cause", descending=[True, False])
    if causes.height:
        sentence += ": " + ", ".join(f"{count} × {cause}" for cause, count in causes.rows())
    return [
        Fact(
            name="equipment",
            sentence=sentence + ".",
            label="Machines with a fault",
            value=machines,
            before=then["machine_id"].n_unique() or None,
        )
    ]
