"""The models of the machines: anomalies in their signals, and their remaining life."""

from city_assets.equipment.anomalies import anomaly_model
from city_assets.equipment.contract import FLEET
from city_assets.equipment.life import life_model
from city_assets.equipment.tables import MACHINE_FAULTS, MACHINE_FEATURES

ANOMALIES = anomaly_model(
    FLEET,
    name="machine_anomaly",
    features=MACHINE_FEATURES.name,
    faults=MACHINE_FAULTS.id,
    topic="anomaly-detected",
    context=("power_recent", "power_long"),  # the temperature follows the power
)

LIFE = life_model(
    FLEET,
    name="machine_life",
    features=MACHINE_FEATURES.name,
    log="silver/maintenance_log",
    topic="maintenance-predictions",
    most_rows=40_000,  # the networks of the model take minutes for ten times as many
)

MODELS = (ANOMALIES, LIFE)
