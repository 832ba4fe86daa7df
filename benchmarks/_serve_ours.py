"""Our server with the benchmark's forest as its only model: what `city serve` runs, with the models given."""

from benchmarks.serve import forest
from city.server.app import server
from city.settings import settings

if __name__ == "__main__":
    server(settings(), [forest()]).run()
