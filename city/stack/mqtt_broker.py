"""Runs the embedded MQTT broker, amqtt, in its own process: `python -m city.stack.mqtt_broker HOST PORT`."""

import asyncio
import logging
import signal
import sys


def configuration(host: str, port: int) -> dict[str, object]:
    """Returns amqtt's configuration. Clients are anonymous, because the broker binds to loopback by default."""
    return {
        # An IPv6 address has no brackets here: amqtt passes the text to the system, which does not accept brackets.
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


async def serve(host: str, port: int) -> None:
    """Runs the broker until SIGTERM or SIGINT."""
    from amqtt.broker import Broker

    broker = Broker(configuration(host, port))
    await broker.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
