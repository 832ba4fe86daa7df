"""Assembles the asset graph, without logic of its own. A new domain is discovered, not listed here."""

import dagster as dg

from city.contracts.registry import domains
from city.lake.native_imports import refuse_pyarrow
from city.settings import settings
from city_assets import keys
from city_assets.bronze import low_rate_asset, output_specs, stream_specs
from city_assets.checks import contract_checks
from city_assets.features import online_checks, online_features
from city_assets.hot_tier import hot_checks
from city_assets.maintenance import lake_archive, lake_maintenance, run_retention
from city_assets.models import model_assets, score_specs
from city_assets.monitoring.drift import drift_assets
from city_assets.monitoring.quality import quality_assets
from city_assets.streaming import stream_job
from city_assets.tables import external_specs, reference_specs, table_assets
from resources.kafka import KafkaResource
from resources.lake import LakeResource
from resources.mlflow_run import MLflowRunResource
from resources.models import ModelRegistryResource
from resources.questdb import QuestDBResource
from sensors_and_schedules.keep_fresh import keep_fresh
from sensors_and_schedules.keep_streaming import keep_streaming
from sensors_and_schedules.low_rate_topics import low_rate_sensor
from sensors_and_schedules.report_history import report_history
from sensors_and_schedules.retrain import retrain, train_models
from sensors_and_schedules.schedules import SCHEDULES
from sensors_and_schedules.watch_data import watch_data


def build() -> dg.Definitions:
    """Builds the code location's definitions from the domains that are installed now."""
    keys.reload_days()
    config = settings()
    all_domains = domains()
    pairs = [(domain, contract) for domain in all_domains for contract in domain.contracts]
    low_rate = [pair for pair in pairs if pair[1].rate == "low"]
    low_rate_sensors = [low_rate_sensor([contract for _, contract in low_rate])] if low_rate else []
    domain_modules = [
        module for domain in all_domains for file in ("assets", "checks") if (module := domain.module(file))
    ]
    return dg.Definitions(
        assets=[
            *(spec for domain in all_domains for spec in stream_specs(domain)),
            *output_specs(all_domains),
            *(low_rate_asset(*pair) for pair in low_rate),
            *(dg.load_assets_from_modules(domain_modules)),
            *(spec for domain in all_domains for spec in external_specs(domain)),
            *(asset for domain in all_domains for asset in table_assets(domain)),
            *reference_specs(),
            online_features,
            *(asset for domain in all_domains for asset in model_assets(domain)),
            *(spec for domain in all_domains for spec in score_specs(domain)),
            *quality_assets(),
            *drift_assets(),
            lake_maintenance,
            lake_archive,
        ],
        asset_checks=[
            *(check for _, contract in pairs for check in (*contract_checks(contract), *hot_checks(contract))),
            *(dg.load_asset_checks_from_modules(domain_modules)),
            *online_checks(),
        ],
        jobs=[stream_job, run_retention, train_models],
        executor=dg.in_process_executor,  # a process per step takes seconds to start, and a step takes only seconds
        sensors=[keep_streaming, keep_fresh, report_history, watch_data, retrain, *low_rate_sensors],
        schedules=SCHEDULES,
        resources={
            "models": ModelRegistryResource(),
            "mlflow": MLflowRunResource(),
            "lake": LakeResource(path=str(config.lake)),
            "kafka": KafkaResource(address=str(config.kafka)),
            "questdb": QuestDBResource(address=str(config.questdb)),
        },
    )


refuse_pyarrow()  # in the code server, in the stream and in every run
defs = build()
