"""Algorithm 1 of Rout et al. 2023 on samples: what a generator that is learned, and not computed, is off by.

Nothing here sees a mask. The target of a step is mu~ = a x_0 + b x_t, linear in x_0, so that theta_t* of Theorem 8
(Theorem 3 for s = 0) is a linear regression with independent Gaussian residuals, whose errors are known exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import VP
from .model import LinearModel, normals

BATCH = 50


def sgd(model: LinearModel, beta: float, samples: int, *, seed: int) -> Tensor:
    """theta (d, d) of the two-state model, by stochastic gradient descent on ||x_0 - theta x_1||^2 from theta = 0.

    Every sample is seen once, in batches of 50; the iterates of the second half are averaged (Polyak and Ruppert). All
    gradients lie in the manifold, so (I - P) theta = 0 whatever the number of samples.

    Args:
        model: gives the images; its mask is not read.
        beta: variance of the noise, in (0, 1).
        samples: training images, at least 2 batches of them.
        seed: of images and noise.
    """
    alpha, sigma = math.sqrt(1 - beta), math.sqrt(beta)
    steps = samples // BATCH
    # The largest rate that is stable for a batch: curvature 1 along the manifold, E ||x_1||^2 / batch from its noise.
    rate = 1 / (1 + (model.k * (1 - beta) + model.d * beta) / BATCH)
    latents = normals(BATCH, model.k, seed=seed, use="training latent")
    noises = normals(BATCH, model.d, seed=seed, use="training noise")
    theta = torch.zeros(model.d, model.d, dtype=torch.float64)
    average = torch.zeros_like(theta)
    for step in range(steps):
        x_0 = next(latents) @ model.A.mT
        x_1 = alpha * x_0 + sigma * next(noises)
        theta = theta - rate / BATCH * (x_1 @ theta.mT - x_0).mT @ x_1
        if step >= steps // 2:
            average += theta / (steps - steps // 2)
    return average


def renormalised_error(model: LinearModel, theta: Tensor, beta: float) -> Tensor:
    """Delta = theta / alpha - P (d, d), the perturbation of Assumption 5."""
    return theta / math.sqrt(1 - beta) - model.P


def least_squares(model: LinearModel, schedule: VP, t: Tensor, s: Tensor, samples: int, *, seed: int) -> Tensor:
    """theta_t (d, d) by least squares of mu~ on x_t over ``samples`` > d + 1 images, one noise each."""
    x_0 = model.draw(samples, seed=seed)
    x_t = transitions.perturb(schedule, x_0, t, next(normals(samples, model.d, seed=seed, use="regression noise")))
    b, a = transitions.backward_weights(schedule, t, s)
    solution: Tensor = torch.linalg.lstsq(x_t, a * x_0 + b * x_t).solution
    return solution.mT


def least_squares_error(model: LinearModel, schedule: VP, t: Tensor, s: Tensor, samples: int) -> float:
    """E ||theta - theta_t*||_F^2 of that, exactly: the residual is a sigma_t times noise in the manifold.

    E (X^T X)^-1 = H^-1 / (N - d - 1) with H = alpha_t^2 P + sigma_t^2 I (the inverse Wishart law).
    """
    sigma = float(schedule.sigma(t)) ** 2
    a = float(transitions.backward_weights(schedule, t, s)[1])
    inverse = model.k + (model.d - model.k) / sigma
    return a**2 * sigma * model.k * inverse / (samples - model.d - 1)
