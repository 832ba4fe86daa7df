"""The embedded MQTT broker: amqtt, in a process of its own. `python -m city.stack.mqtt_broker HOST PORT`."""

import asyncio
import logging
import signal
import sys
from typing import Any


def configuration(host: str, port: int) -> dict[str, Any]:
    """Anonymous clients, because it binds to loopback unless it is told otherwise."""
    return {
        # An IPv6 address without brackets: amqtt would hand them on to the system, which knows no such host.
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


async def serve(host: str, port: int) -> None:
    """Until SIGTERM or SIGINT."""
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
