"""Our server with the benchmark's forest as its only model: what `city serve` runs, with the models given."""

from benchmarks.serve import forest
from city.serving.app import run
from city.settings import settings

if __name__ == "__main__":
    run(settings(), [forest()])
