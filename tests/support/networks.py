# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights, and what precision their operators have."""

import numpy as np


def norm_errors(powers, p):
    """Largest relative errors of a p-norm and of a term of its gradients.

    Let u be the error of one power. In bfloat16 it is the rounding, half of the last of 8 bits: 2^-8. In float32 it is
    that of p times a logarithm from -8 to 0, half of whose last bit is 2^-22, plus that of an exponential, 1e-6: at
    most (p + 4) 2^-21. A norm is the 1/p-th power of a sum of products of two powers, which is rounded once more: 3 u
    / p. A gradient's term has the sum to the power of 1/p - 1, 3 u, and five roundings: that quotient's, the one of its
    product with what came, those of the two powers and that of their sum. What is float32 in both, a quotient of a sum
    down to 2^-126, is off by half of the last bit of its exponent, 2^-18, in units of ln 2 of the result.
    """
    u = 2.0**-8 if powers == "bfloat16" else (p + 4) * 2.0**-21
    return 3 * u / p + 2.0**-18, 8 * u + 2.0**-18


def random_network(architecture, layouts, seed=0, groups=1):
    """A network with random normalisations, of both signs of gamma."""
    import torch

    from bmhw.models.networks.network import Network, estimate_statistics

    torch.manual_seed(seed)
    network = Network(architecture, layouts, groups)
    for step in network.steps.values():
        if isinstance(step, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(step.weight)
            torch.nn.init.normal_(step.bias)
        elif step.bias is not None:
            torch.nn.init.normal_(step.bias, std=0.1)
    images = np.random.default_rng(seed).integers(0, 256, (64, *architecture.image.shape)) / 256
    estimate_statistics(network, [torch.tensor(images, dtype=torch.float32)])
    return network.eval()


def reached_by_a_step(folded, pixels, gradient_norm):
    """Names of a folded network's parameters that a step of training moves; its values don't depend on the gradient's
    norm."""
    import torch

    with torch.no_grad():
        expected = folded(pixels)
    for step in folded.steps.values():
        step.gradient_norm = gradient_norm
    torch.testing.assert_close(folded.train()(pixels), expected)
    torch.nn.functional.cross_entropy(folded(pixels), torch.arange(len(pixels)) % expected.shape[1]).backward()
    return {name for name, parameter in folded.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0}
