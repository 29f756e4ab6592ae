"""LEEP by hand, and the mixture under N-LEEP against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from tl_core.selection.scores import leep, nleep
from tl_core.selection.scores.nleep import clusters


def test_leep_of_a_table_worked_by_hand() -> None:
    theta = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]])
    y = torch.tensor([7, 7, 3, 3])
    # joint sums: class 7: 1.4, 0.6; class 3: 0.6, 1.4; so P(7|z) = 0.7, 0.3 and P(3|z) = 0.3, 0.7
    expected = [0.8 * 0.7 + 0.2 * 0.3, 0.6 * 0.7 + 0.4 * 0.3, 0.1 * 0.3 + 0.9 * 0.7, 0.5 * 0.3 + 0.5 * 0.7]
    assert leep(theta, y) == pytest.approx(sum(map(math.log, expected)) / 4, rel=1e-6)


def test_leep_of_useless_and_of_perfect_source_classes() -> None:
    y = torch.tensor([0, 0, 0, 1])
    assert leep(torch.full((4, 3), 1 / 3), y) == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert leep(torch.nn.functional.one_hot(y, 5).float(), y) == pytest.approx(0.0, abs=1e-9)


def test_two_clusters_of_mixed_classes_by_hand() -> None:
    """Two far clusters, whatever their inner parts: every cluster is a class's own, or holds only its own rows."""
    x = torch.tensor([[0.0], [10.0]] * 10)
    y = torch.tensor([0, 1] * 8 + [1, 1] + [0, 0])
    # at 0: classes 0 x9, 1 x1; at 10: 1 x9, 0 x1
    expected = 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert nleep(x, y, "multiclass") == pytest.approx(expected, abs=1e-6)


def test_clusters_are_the_mixture_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) * [1.0, 0.5, 2.0] + 12 * rng.normal(size=(4, 3))[np.arange(300) % 4]
    floor = 1e-2 * x.var(axis=0).mean()
    reference = GaussianMixture(4, covariance_type="diag", reg_covar=floor, n_init=5, random_state=0).fit(x)
    expected = reference.predict_proba(x)
    found = clusters(torch.from_numpy(x), 4, seed=0).numpy()
    assert np.allclose(found.sum(axis=1), 1)
    overlap = found.T @ expected  # components come in any order
    assert np.allclose(found, expected[:, overlap.argmax(axis=1)], atol=1e-3)


def test_score_is_leep_on_clusters_of_the_principal_components() -> None:
    rng = np.random.default_rng(1)
    y = np.arange(200) % 4
    x = rng.normal(size=(200, 20)) * np.linspace(0.3, 3, 20) + 2 * rng.normal(size=(4, 20))[y]
    components = PCA(0.8, svd_solver="full").fit_transform(x)
    posteriors = clusters(torch.from_numpy(components), 20, seed=5)
    found = nleep(torch.from_numpy(x), torch.from_numpy(y), "multiclass", seed=5)
    assert found == pytest.approx(leep(posteriors, torch.from_numpy(y)), rel=1e-6)
    assert found == nleep(torch.from_numpy(x), torch.from_numpy(y), "multiclass", seed=5)


def test_only_for_classes() -> None:
    with pytest.raises(ValueError, match="defined for classes, not for multilabel"):
        nleep(torch.randn(10, 3), torch.ones(10, 2), "multilabel")
