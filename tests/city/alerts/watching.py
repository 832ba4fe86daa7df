"""A process that looks at the platform as the server does: `python -m tests.city.alerts.watching`."""

import threading

from city.alerts.store import alert_store
from city.alerts.watch import PlatformWatch
from city.settings import settings

if __name__ == "__main__":
    config = settings()
    watch = PlatformWatch(config, alert_store(config))
    while True:
        watch.look()
        (config.run / "looked").touch()
        threading.Event().wait(0.2)
