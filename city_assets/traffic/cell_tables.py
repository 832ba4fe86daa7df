"""The feature table of a cell's traffic, and the tables that its features come from."""

from city.tables import Column, Source, Table, calendar
from city_assets.traffic import cell_features, cell_links
from city_assets.traffic.columns import DAY, HOLIDAY, LOCAL_HOUR, RUSH_HOUR, WEEKDAY, count, feature
from city_assets.traffic.contract import CELL_WINDOW

_CELL = "H3 cell"
_LED = ("windows.speed_mean", "leaders.weight")


ROAD_LINKS = Table(
    name="road_links",
    layer="reference",
    description="The cells whose traffic a cell's traffic depends on, by the roads. A cell without links has the cells "
    "around it.",
    key=("cell", "neighbour"),
    daily=False,
    columns=(
        Column(name="cell", kind="string", description=_CELL),
        Column(name="neighbour", kind="string", description="H3 cell that a road joins with it"),
    ),
)

SPEEDS_HOURLY = Table(
    name="traffic_speeds_hourly",
    layer="gold",
    description="How fast the windows of each cell were, by the local hour.",
    key=("day", "cell", "local_hour"),
    columns=(
        Column(name="cell", kind="string", description=_CELL, origins=("windows.cell",)),
        LOCAL_HOUR,
        count("windows", "windows with a speed", "windows.cell"),
        feature("speed_mean", "mean speed of the windows", "windows.speed_mean", nullable=False),
        feature("speed_square", "mean square of that speed", "windows.speed_mean", nullable=False, unit="km²/h²"),
        DAY,
    ),
    sources={"windows": Source(table="gold/traffic_cells"), "calendar": Source(table=calendar.REFERENCE_CALENDAR)},
    transform=cell_features.speeds_hourly,
)

USUAL_SPEEDS = Table(
    name="traffic_usual_speeds",
    layer="gold",
    description=f"The usual speed of each cell by the local hour, from a day and the {cell_features.USUAL_DAYS - 1} "
    "days before it. The features of the days after use it until a newer day is built.",
    key=("day", "cell", "local_hour"),
    columns=(
        Column(name="cell", kind="string", description=_CELL, origins=("hours.cell",)),
        LOCAL_HOUR,
        feature("usual_speed", "mean speed at this hour", "hours.speed_mean", nullable=False),
        feature("usual_speed_before", "mean speed an hour before", "hours.speed_mean"),
        feature("usual_speed_after", "mean speed an hour after", "hours.speed_mean"),
        feature("level_mean", "mean speed at all hours", "hours.speed_mean", nullable=False),
        feature("level_std", "spread of the speed at all hours", "hours.speed_square", nullable=False),
        DAY,
    ),
    sources={"hours": Source(table=SPEEDS_HOURLY.id, days_before=cell_features.USUAL_DAYS - 1)},
    transform=cell_features.usual_speeds,
)

PAIR_CHANGES = Table(
    name="traffic_pair_changes",
    layer="gold",
    description="How the speed of each cell changes after that of a cell around it, by the day.",
    key=("day", "cell", "neighbour"),
    columns=(
        Column(name="cell", kind="string", description=_CELL, origins=("windows.cell",)),
        Column(name="neighbour", kind="string", description="cell around it", origins=("windows.cell",)),
        count("windows", "windows in which both have a change", "windows.cell"),
        feature("own", "mean change of the cell's speed", "windows.speed_mean", nullable=False),
        feature("leading", "mean change of the neighbour's speed before", "windows.speed_mean", nullable=False),
        *(
            feature(name, f"mean of {what}", "windows.speed_mean", nullable=False, unit="km²/h²")
            for name, what in (
                ("own_square", "the square of the cell's change"),
                ("leading_square", "the square of the neighbour's change before"),
                ("product", "the product of both changes"),
            )
        ),
        DAY,
    ),
    sources={
        "windows": Source(table="gold/traffic_cells", days_before=1),
        "neighbours": Source(table="reference/neighbours", cell_source="windows"),
        "road_links": Source(table=ROAD_LINKS.id),
        "calendar": Source(table=calendar.REFERENCE_CALENDAR),
    },
    transform=cell_links.pair_changes(CELL_WINDOW.every),
)

LEADERS = Table(
    name="traffic_leaders",
    layer="gold",
    description="The cells whose speeds change before that of a cell, from a day and the "
    f"{cell_links.LEADER_DAYS - 1} days before it. The features of the days after use them until a newer day is built.",
    key=("day", "cell", "neighbour"),
    columns=(
        Column(name="cell", kind="string", description=_CELL, origins=("pairs.cell",)),
        Column(name="neighbour", kind="string", description="the cell that leads it", origins=("pairs.neighbour",)),
        Column(
            name="weight",
            kind="float",
            description="correlation of the cell's change with the neighbour's change before",
            origins=tuple(f"pairs.{name}" for name in ("own_square", "leading_square", "product")),
        ),
        DAY,
    ),
    sources={"pairs": Source(table=PAIR_CHANGES.id, days_before=cell_links.LEADER_DAYS - 1)},
    transform=cell_links.leaders,
)

TRAFFIC_FEATURES = Table(
    name="traffic_features",
    layer="features",
    description="What is known of a cell's traffic when a window ends.",
    key=("cell", "as_of"),
    time="as_of",
    columns=(
        Column(name="cell", kind="string", description=_CELL, origins=("windows.cell",)),
        Column(name="as_of", kind="timestamp", description="the window's end", origins=("windows.window_start",)),
        Column(
            name="window_start",
            kind="timestamp",
            description="the window's beginning",
            origins=("windows.window_start",),
        ),
        count("vehicle_count", "different vehicles", "windows.vehicle_count"),
        count("positions", "positions reported", "windows.positions"),
        feature("speed_mean", "mean speed", "windows.speed_mean"),
        feature("speed_std", "spread of speed", "windows.speed_std"),
        *(
            feature(f"speed_lag_{n}", f"mean speed {n} windows before", "windows.speed_mean")
            for n in cell_features.LAGS
        ),
        feature("speed_recent", "mean of the window's speed and those before it", "windows.speed_mean"),
        *(
            feature(
                f"speed_past_{name}",
                f"{what} of the speed in the last {1 + max(cell_features.PAST)} windows",
                "windows.speed_mean",
            )
            for name, what in (("mean", "mean"), ("std", "spread"), ("min", "minimum"), ("max", "maximum"))
        ),
        feature("speed_neighbours", "mean speed of the cells around it", "windows.speed_mean"),
        feature("speed_slowest_neighbour", "speed of the slowest cell around it", "windows.speed_mean"),
        feature("speed_fastest_neighbour", "speed of the fastest cell around it", "windows.speed_mean"),
        feature("neighbours_change", "mean change of the speed around it in three windows", "windows.speed_mean"),
        feature("neighbours_largest_drop", "least change of the speed of a cell around it", "windows.speed_mean"),
        feature("speed_leaders", "mean speed of the cells that lead it, by their weights", *_LED),
        feature("leaders_change", "mean change of their speed in three windows", *_LED),
        feature("speed_city", "mean speed of all cells", "windows.speed_mean"),
        feature("speed_city_before", "mean speed of all cells three windows before", "windows.speed_mean"),
        feature("speed_usual", "usual speed at this time of the day", "usual.usual_speed"),
        feature("speed_usual_later", "usual speed a quarter of an hour later", "usual.usual_speed"),
        feature("speed_level", "mean speed of the days before", "usual.level_mean"),
        feature("speed_level_std", "spread of the speed of the days before", "usual.level_std"),
        *(
            feature(name, f"rain {ago}", "precipitation.precipitation_mean", unit="mm/h")
            for name, ago in (("precipitation", "five minutes ago"), ("precipitation_before", "ten minutes ago"))
        ),
        LOCAL_HOUR,
        WEEKDAY,
        HOLIDAY,
        RUSH_HOUR,
        DAY,
    ),
    sources={
        "windows": Source(table="gold/traffic_cells", days_before=1),
        "precipitation": Source(table="gold/location_precipitation", days_before=1, is_context=True),
        "neighbours": Source(table="reference/neighbours", cell_source="windows"),
        "road_links": Source(table=ROAD_LINKS.id),
        "leaders": Source(table=LEADERS.id, days_before=cell_features.LEARNED_DAYS, is_settled=True),
        "usual": Source(table=USUAL_SPEEDS.id, days_before=cell_features.LEARNED_DAYS, is_settled=True),
        "calendar": Source(table=calendar.REFERENCE_CALENDAR),
    },
    transform=cell_features.cell_features(CELL_WINDOW.every),
)

CELL_TABLES = (ROAD_LINKS, SPEEDS_HOURLY, USUAL_SPEEDS, PAIR_CHANGES, LEADERS, TRAFFIC_FEATURES)
