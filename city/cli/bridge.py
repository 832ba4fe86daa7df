"""city bridge: carries MQTT messages to Kafka for every contract that has an MQTT topic. `city up` starts it."""


def command() -> None:
    """Carry MQTT messages to Kafka until interrupted."""
    import logging
    import signal
    import threading

    from city.contracts.registry import domains
    from city.settings import settings
    from city.sources.registry import sources
    from city.streaming.bridge import Bridge

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    config = settings()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    active = [domain for domain in domains(config) if config.is_active(domain.name)]
    contracts = [contract for domain in active for contract in domain.contracts if contract.mqtt]
    Bridge(contracts, config, sources(config)).run(stop)
