"""How named tensors are compared with a network's: one way for deltas, bases and public checkpoints."""

import torch
from torch import Tensor

from tav.networks import Misfit, misfit_of

NETWORK = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}


def misfit(**tensors: Tensor) -> Misfit:
    return misfit_of(tensors, NETWORK)


def test_the_same_names_and_shapes_fit_whatever_the_values_and_order() -> None:
    assert not misfit(b=torch.ones(4), a=torch.ones(2, 3, dtype=torch.float16))


def test_every_difference_is_named() -> None:
    differing = misfit(a=torch.zeros(3, 2), d=torch.zeros(1), c=torch.zeros(1))
    assert differing
    assert differing == Misfit(missing=["b"], unknown=["c", "d"], reshaped=["a"])
