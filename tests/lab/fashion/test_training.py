"""Training of the classifier on made-up pictures."""

from __future__ import annotations

import re

import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.lab.fashion.classifier import Classifier
from priorpaint.lab.fashion.corruptions import TRAINED, UNSEEN, doubtful
from priorpaint.lab.fashion.training import Recipe, shifted, train
from tests.lab.fashion.made_up import made_up

RECIPE = Recipe(epochs=6, batch=64, held_out=64, seed=3)


def trained(said: list[str] | None = None, recipe: Recipe = RECIPE) -> Classifier:
    x, labels = made_up(448)
    return train(x, labels, recipe, say=(said if said is not None else []).append)


@pytest.fixture(scope="module")
def found() -> tuple[Classifier, list[str], bool]:
    torch.manual_seed(0)
    before, said = torch.get_rng_state(), []
    classifier = trained(said)
    return classifier, said, torch.equal(before, torch.get_rng_state())


def test_the_loss_falls_and_the_classes_are_learned(found: tuple[Classifier, list[str], bool]) -> None:
    classifier, said, _ = found
    losses = [float(re.search(r"loss ([\d.]+)", text).group(1)) for text in said]  # type: ignore[union-attr]
    assert len(losses) == 6 and losses[-1] < 0.75 * losses[0]
    x, labels = made_up(100, seed=1)
    assert float((classifier.judge(x).classes == labels).float().mean()) > 0.95


def test_thresholds_are_quantiles_of_pictures_that_were_held_out(found: tuple[Classifier, list[str], bool]) -> None:
    """97 % pass the confidence and 99 % the distance, so at least 96 % of 64, and about as many of fresh ones."""
    classifier = found[0]
    judged = classifier.judge(made_up(500, seed=2)[0])
    assert float(judged.valid.float().mean()) > 0.85
    assert 0.1 < classifier.confidence < 1 and 0 < classifier.reach < 100
    assert torch.equal(
        judged.valid, (judged.probabilities.amax(1) >= classifier.confidence) & (judged.distance <= classifier.reach)
    )


def test_features_are_whitened_within_the_classes(found: tuple[Classifier, list[str], bool]) -> None:
    """W C W^T = I on what the Gaussians were fitted to: the mean squared distance to the own class is 64."""
    classifier = found[0]
    order = torch.randperm(448, generator=_generator())
    x, labels = (values[order[RECIPE.held_out :]] for values in made_up(448))
    rest = (classifier.features(x) - classifier.means[labels]) @ classifier.whiten.T
    assert float(rest.square().sum(1).mean()) == pytest.approx(64, rel=0.05)


def _generator() -> torch.Generator:
    from priorpaint.diffusion.rng import derive

    return torch.Generator().manual_seed(derive("fashion classifier", RECIPE.seed))


def test_the_global_generator_is_left_alone(found: tuple[Classifier, list[str], bool]) -> None:
    assert found[2]


def test_a_seed_is_a_network() -> None:
    short = Recipe(epochs=1, batch=64, held_out=64, seed=5)
    torch.manual_seed(1)
    first = trained(recipe=short)
    torch.manual_seed(2)
    again = trained(recipe=short)
    assert first.to_bytes() == again.to_bytes()
    other = trained(recipe=Recipe(epochs=1, batch=64, held_out=64, seed=6))
    assert first.to_bytes() != other.to_bytes()


def test_shifts_move_whole_pictures_and_bring_in_black() -> None:
    x = torch.full((200, 1, 32, 32), -1.0)
    x[:, :, 10, 20] = 1
    moved = shifted(x, 1, torch.Generator().manual_seed(0))
    places = {tuple(place) for place in (moved > 0).nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in (9, 10, 11) for column in (19, 20, 21)}
    assert bool(((moved == 1).sum((1, 2, 3)) == 1).all()) and bool((moved.abs() == 1).all())
    assert torch.equal(shifted(x, 0, torch.Generator().manual_seed(0)), x)


@pytest.mark.parametrize("name", [*TRAINED, *UNSEEN])
def test_corruptions_change_pictures_and_keep_the_range(name: str) -> None:
    x, labels = made_up(40)
    corrupt = (TRAINED | UNSEEN)[name]
    wrong = corrupt(x, labels, torch.Generator().manual_seed(0))
    assert wrong.shape == x.shape and float(wrong.abs().max()) <= 1
    changed = (wrong - x).abs().amax((1, 2, 3)) > 0.3
    # A bar through the middle is its own half turn, and a half plane may have no part of a bar.
    assert float(changed.float().mean()) >= (0.8 if name in ("upside down", "black half") else 0.95)
    assert torch.equal(wrong, corrupt(x, labels, torch.Generator().manual_seed(0)))


def test_doubtful_pictures_are_always_changed() -> None:
    x, labels = made_up(60)
    wrong = doubtful(x, labels, torch.Generator().manual_seed(0))
    assert float((wrong - x).abs().mean((1, 2, 3)).min()) > 0.1


def test_what_cannot_be_trained() -> None:
    x, labels = made_up(100)
    with pytest.raises(UsageError, match="too few"):
        train(x, labels, RECIPE)
    with pytest.raises(UsageError, match="at least 1 epoch"):
        Recipe(epochs=0)
