"""A model on a stream sees earlier rows only, and is trained anew where its errors grow."""

from typing import Any

import numpy as np

from city.models.prequential import live


class Fitted:
    """Predicts the sign of the feature that the labels went with; remembers what it was shown."""

    def __init__(self, x: Any, y: Any) -> None:
        self.seen = len(x)
        self.column = int(np.argmax([np.abs(np.corrcoef(x[:, c], y)[0, 1]) for c in range(x.shape[1])]))

    def predict(self, x: Any) -> Any:
        return (x[:, self.column] > 0).astype(float)


def stream(change: int | None, rows: int = 4000) -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(rows, 2))
    of = np.where(np.arange(rows) < (rows if change is None else change), x[:, 0], x[:, 1])
    return x, (of > 0).astype(float)


def test_a_change_is_found_and_learned() -> None:
    x, y = stream(2000)
    life = live(x, y, Fitted, block=50, memory=400, watch=100)
    assert np.isnan(life.predicted[:50]).all()
    later = [at for at in life.trained_at if at > 2000]
    assert 2000 < later[0] <= 2200
    assert (life.predicted[3000:] == y[3000:]).mean() > 0.99


def test_a_stable_stream_is_trained_on_only_while_it_is_young() -> None:
    x, y = stream(None)
    life = live(x, y, Fitted, block=50, memory=400, watch=100)
    assert life.trained_at == (50, 100, 150, 250, 400)


def test_no_label_is_seen_before_it_is_predicted() -> None:
    x, y = stream(2000)
    shown: list[int] = []

    def fit(rows: Any, labels: Any) -> Fitted:
        assert any(np.array_equal(rows, x[a : a + len(rows)]) for a in range(len(x) - len(rows) + 1))
        shown.append(int(np.where((x == rows[-1]).all(1))[0][0]))
        return Fitted(rows, labels)

    life = live(x, y, fit, block=50, memory=400, watch=100)
    assert [at - 1 for at in life.trained_at] == shown
