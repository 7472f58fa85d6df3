"""Failures of a device in ``fit``, which no CPU here can have."""

from types import SimpleNamespace

import pytest

from pipeline.backend import import_keras

import_keras()

from pipeline.errors import UserError  # noqa: E402
from pipeline.recipe import Recipe  # noqa: E402
from pipeline.run.training import fit_phases  # noqa: E402


class ResourceExhaustedError(Exception):
    """By the name of TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "explained"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (ResourceExhaustedError("OOM when allocating tensor"), True),
        (RuntimeError("INTERNAL: a fault"), False),
    ],
)
def test_full_memory_of_a_device_is_explained(error: Exception, explained: bool) -> None:
    def fit(*args: object, **settings: object) -> None:
        raise error

    batches = SimpleNamespace(begin_epoch=lambda *at: None, for_fit=lambda: None, failure=None)
    state = SimpleNamespace(recipe=Recipe(epochs=1, batch_size=4), epoch=0, epochs=1, batch_size=4)
    expected = UserError if explained else type(error)
    with pytest.raises(expected, match="smaller -b" if explained else "a fault"):
        fit_phases(SimpleNamespace(fit=fit), batches, state, [])
