"""The transforms of the environment's silver, gold and feature tables: functions of frames, on any engine."""

import narwhals as nw

from city.tables.calendar import HOUR, SLOT_SECONDS, on_calendar
from city.tables.model import Frame
from city_assets.environment.contract import QUANTITIES

WINDOW_SECONDS = 300  # the length of the windows by location


def add_position(readings: Frame, devices: Frame) -> Frame:
    """Adds to readings what the sensor announced: where it stands, and its H3 cell. Null if it never did.

    What a reading itself says of its place counts more.
    """
    names = ("location", "latitude", "longitude")
    announced = devices.select("sensor_id", "cell", **{f"_{name}": nw.col(name) for name in names})
    joined = readings.join(announced, on="sensor_id", how="left")
    return joined.with_columns(**{name: nw.coalesce(name, f"_{name}") for name in names})


def conditions_hourly(sensors: Frame) -> Frame:
    """Computes the mean of each quantity at each location and hour, of sensors whose location is known."""
    hours = _placed(sensors).with_columns(hour=nw.col("timestamp").dt.truncate("1h"))
    return hours.group_by(*HOUR, "location").agg(readings=nw.len(), **_aggregate_quantities("mean"))


def _placed(sensors: Frame) -> Frame:
    return sensors.filter(~nw.col("location").is_null())


def conditions_daily(sensors: Frame) -> Frame:
    """Computes the mean, minimum and maximum of each quantity at each location and day, as `conditions_hourly`."""
    return (
        _placed(sensors)
        .group_by("day", "location")
        .agg(
            readings=nw.len(),
            **_aggregate_quantities("mean"),
            **_aggregate_quantities("min"),
            **_aggregate_quantities("max"),
        )
    )


def sensor_health_daily(sensors: Frame) -> Frame:
    """Computes how well each sensor worked on each day.

    `uptime` is the share of quarter-hours in which the sensor reported, among those in which any sensor reported.
    `offset` is the sensor's mean minus the mean of its type at its location. `drift` is the change of the offset since
    the day before, in standard deviations of the sensor's readings.
    """
    sensors = sensors.with_columns(location=nw.col("location").fill_null("unknown"))
    slots = sensors.with_columns(slot=nw.col("_timestamp_seconds") // SLOT_SECONDS)
    gaps = slots.with_columns(
        gap=nw.col("_timestamp_seconds")
        - nw.col("_timestamp_seconds").shift(1).over("day", "sensor_id", order_by="_timestamp_seconds")
    )
    by_sensor = gaps.group_by("day", "sensor_id", "location", "type").agg(
        readings=nw.len(),
        first_at=nw.col("timestamp").min(),
        last_at=nw.col("timestamp").max(),
        slots=nw.col("slot").n_unique(),
        longest_gap_seconds=nw.col("gap").max(),
        value_mean=nw.col("value").mean(),
        value_std=nw.col("value").std(),
    )
    in_all = slots.group_by("day").agg(slots_in_all=nw.col("slot").n_unique())
    peers = sensors.group_by("day", "location", "type").agg(peers_mean=nw.col("value").mean())
    judged = by_sensor.join(in_all, on="day").join(peers, on=["day", "location", "type"])
    judged = judged.with_columns(
        uptime=(nw.col("slots") / nw.col("slots_in_all")).round(6), offset=nw.col("value_mean") - nw.col("peers_mean")
    )
    moved = nw.col("offset") - nw.col("offset").shift(1).over("sensor_id", order_by="day")
    return judged.with_columns(
        drift=(moved / nw.when(nw.col("value_std") > 0).then(nw.col("value_std"))).round(6),
        **{name: nw.col(name).round(6) for name in ("offset", "value_mean", "value_std")},
    )


def weather_features(
    air_quality: Frame,
    noise: Frame,
    temperature: Frame,
    humidity: Frame,
    precipitation: Frame,
    wind: Frame,
    traffic: Frame,
    calendar: Frame,
) -> Frame:
    """Computes a district's air, noise and weather in each window, with the values of the window before.

    The windows are those in which the air quality was measured. A quantity that was not measured in them is null.
    """
    features = on_calendar(air_quality.drop("day"), "window_start", calendar)
    at = ["location", "_window_start_seconds"]
    windows = {
        "air_quality": air_quality,
        "noise": noise,
        "temperature": temperature,
        "humidity": humidity,
        "precipitation": precipitation,
        "wind": wind,
        "traffic": traffic,
    }
    for name, frame in windows.items():
        if name != "air_quality":
            features = features.join(frame.select(*at, f"{name}_mean"), on=at, how="left")
        before = frame.select(
            "location",
            _window_start_seconds=nw.col("_window_start_seconds") + WINDOW_SECONDS,
            **{f"{name}_lag_1": nw.col(f"{name}_mean")},
        )
        features = features.join(before, on=at, how="left")
    return features.with_columns(
        as_of=nw.col("window_start").dt.offset_by(f"{WINDOW_SECONDS // 60}m"), holiday=~nw.col("holiday").is_null()
    )


def sensor_features(sensors: Frame) -> Frame:
    """Computes the statistics of each sensor's readings in each hour."""
    hours = sensors.with_columns(hour=nw.col("timestamp").dt.truncate("1h"))
    by_hour = hours.group_by("day", "hour", "sensor_id").agg(
        readings=nw.len(),
        value_mean=nw.col("value").mean().round(6),
        value_std=nw.col("value").std().round(6),
        value_min=nw.col("value").min(),
        value_max=nw.col("value").max(),
    )
    return by_hour.with_columns(as_of=nw.col("hour").dt.offset_by("1h"))


def _aggregate_quantities(aggregate: str) -> dict[str, nw.Expr]:
    return {
        f"{q.name}_{aggregate}": getattr(nw.when(nw.col("type") == q.name).then(nw.col("value")), aggregate)().round(6)
        for q in QUANTITIES
    }
