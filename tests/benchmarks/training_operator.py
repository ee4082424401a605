# SPDX-License-Identifier: Apache-2.0
"""``python tests/benchmarks/training_operator.py``: the training operator against a convolution, as ratios.

For every convolution of ResNet20v2 on 28x28 images and for all of them together: forward plus backward of a
``signed`` and a ``relu`` layer in units of ``torch.nn.functional.conv2d``, the unfold-and-broadcast
formulation in units of the operator, and the memory that the operator takes in units of the convolution's.
A second table: the operators with ``--groups`` groups of input channels in units of the same without, each layout's
exact maxima, p-norms, and exact maxima with the gradient of p-norms; of the convolutions alone, and of the network with
all that lies between them. CPU time of this process, best of ``--repeat``, so
that a busy machine distorts it less.
"""

import argparse
import functools
import time
from collections import Counter

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import conv2d, unfold

from bmhw.models.networks.architecture import resnet_v2
from bmhw.models.networks.groups import groups_of
from bmhw.models.networks.layers import BmConv2d, combine_layout
from bmhw.models.networks.network import Network
from bmhw.models.operators import native
from bmhw.models.operators.max_product import max_product_difference
from bmhw.models.operators.precision import powers_name
from bmhw.models.operators.smoothed import norm_difference, smoothed_gradient_difference
from bmhw.models.training.memory import keep_memory

DIFFERENCES = {
    "maxima": max_product_difference,
    "p-norms": functools.partial(norm_difference, p=8.0),
    "maxima, gradient of p-norms": functools.partial(smoothed_gradient_difference, p=8.0),
}


def broadcast(x, w, stride, padding):
    """The ``relu`` layer written with PyTorch's own operators: every product in memory."""
    size = [(x.shape[axis] + 2 * padding - w.shape[axis + 1]) // stride + 1 for axis in (2, 3)]
    patches = unfold(x, w.shape[3:], padding=padding, stride=stride)
    first, second = ((patches[:, None] * half.flatten(1)[:, :, None]).amax(dim=2) for half in w)
    return (first - second).unflatten(-1, size)


def seconds(function, arguments, repeat):
    best = float("inf")
    for _ in range(repeat + 1):
        started = time.process_time()
        y = function(*arguments)
        torch.autograd.grad(y, arguments[:2], torch.ones_like(y))
        best = min(best, time.process_time() - started)
    return best


def kept_bytes(function, arguments):
    """Result, and what is kept for the backward pass beside the arguments."""
    kept = {}
    own = {argument.untyped_storage().data_ptr() for argument in arguments[:2]}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(*arguments)
    inputs = sum(argument.untyped_storage().nbytes() for argument in arguments[:2])
    return inputs + sum((kept | {y.data_ptr(): y.untyped_storage().nbytes()}).values())


def measure(shape, batch, broadcast_batch, repeat):
    """(conv2d, signed, relu, relu of ``broadcast_batch`` images, broadcast of as many) in seconds, and
    (conv2d, signed, relu) in bytes."""
    channels, height, width, outputs, kernel, stride, padding = shape
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).relu().requires_grad_()
    w = torch.randn(outputs, channels, kernel, kernel).requires_grad_()
    pair = torch.rand(2, outputs, channels, kernel, kernel).requires_grad_()

    def layer(layout):
        return lambda x, w, stride, padding: combine_layout(layout, x, w, stride, padding)

    few = x[:broadcast_batch].detach().requires_grad_()
    runs = [
        (conv2d_of, (x, w, stride, padding)),
        (layer("signed"), (x, w, stride, padding)),
        (layer("relu"), (x, pair, stride, padding)),
    ]
    times = [seconds(*run, repeat) for run in runs]
    times += [seconds(f, (few, pair, stride, padding), 1) for f in (layer("relu"), broadcast)]
    return times, [kept_bytes(*run) for run in runs]


def measure_groups(shape, batch, groups, repeat):
    """(layout, operator) -> seconds without groups, and with them."""
    channels, height, width, outputs, kernel, stride, padding = shape
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).relu()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()  # as behind a normalisation
    weights = {
        "signed": torch.randn(outputs, channels, kernel, kernel).requires_grad_(),
        "relu": torch.rand(2, outputs, channels, kernel, kernel).requires_grad_(),
    }
    result = {}
    for layout, w in weights.items():
        for name, difference in DIFFERENCES.items():
            result[layout, name] = [
                seconds(
                    functools.partial(combine_layout, layout, difference=difference, groups=count, nonnegative=True),
                    (x, w, stride, padding), repeat,
                )
                for count in (1, groups_of(channels, groups, 1))
            ]  # fmt: skip
    return result


def measure_network(batch, groups, repeat):
    """As :func:`measure_groups`, of the network with its normalisations and sums, on images."""
    architecture = resnet_v2(1, 28)
    torch.manual_seed(0)
    images, result = torch.rand(batch, 1, 28, 28), {}
    for layout, choice in (("signed", "signed"), ("relu", "auto")):
        networks = [Network(architecture, architecture.layouts(choice), count).train() for count in (1, groups)]
        for name, difference in DIFFERENCES.items():
            best = [float("inf")] * 2
            for _ in range(repeat + 1):
                for i, network in enumerate(networks):
                    for step in network.steps.values():
                        if isinstance(step, BmConv2d):
                            step.training_difference = difference
                    started = time.process_time()
                    network(images).sum().backward()
                    best[i] = min(best[i], time.process_time() - started)
            result[layout, name] = best
    return result


def conv2d_of(x, w, stride, padding):
    return conv2d(x, w, stride=stride, padding=padding)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--groups", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as training does
    reason = native.unavailable_reason()
    if reason is not None:
        raise SystemExit(f"The compiled operator can't be measured: {reason}")
    architecture = resnet_v2(1, 28)
    shapes = Counter()
    for node in architecture.layers:
        source = architecture[node.inputs[0]]
        if node.operation == "conv":
            key = (*source.shape, node.channels, node.kernel[0], node.stride, node.padding)
            shapes[key] += 1
    table = Table(title=f"forward + backward, batch {args.batch}, one thread, torch {torch.__version__}")
    headings = ("convolution", "signed / conv2d", "relu / conv2d", "broadcast / relu", "memory")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "convolution" else "right")

    def row(name, times, memory):
        conv, signed, relu, few, broad = times
        table.add_row(
            name,
            f"{signed / conv:.1f}",
            f"{relu / conv:.1f}",
            f"{broad / few:.1f}",
            f"{memory[1] / memory[0]:.2f}, {memory[2] / memory[0]:.2f}",
        )

    total, total_memory = [0.0] * 5, [0] * 3
    for shape, count in shapes.items():
        times, memory = measure(shape, args.batch, 2, args.repeat)
        channels, height, _, outputs, kernel, stride, _ = shape
        row(f"{kernel}x{kernel}/{stride} {channels}->{outputs}, {height}x{height}", times, memory)
        total = [a + count * b for a, b in zip(total, times, strict=True)]
        total_memory = [a + count * b for a, b in zip(total_memory, memory, strict=True)]
    table.add_section()
    row("all 22 of ResNet20v2", total, total_memory)
    Console(width=100).print(table)
    print_groups(shapes, args)


def print_groups(shapes, args):
    columns = [(layout, name) for layout in ("signed", "relu") for name in DIFFERENCES]
    table = Table(title=f"{args.groups} groups / one, forward + backward, powers in {powers_name('cpu')}")
    table.add_column("convolution")
    for layout, name in columns:
        table.add_column(f"{layout}: {name}", justify="right")
    total = {column: [0.0, 0.0] for column in columns}

    def row(name, times):
        table.add_row(name, *(f"{times[column][1] / times[column][0]:.2f}" for column in columns))

    for shape, count in shapes.items():
        times = measure_groups(shape, args.batch, args.groups, args.repeat)
        channels, height, _, outputs, kernel, stride, _ = shape
        row(f"{kernel}x{kernel}/{stride} {channels}->{outputs}, {height}x{height}", times)
        for column in columns:
            total[column] = [a + count * b for a, b in zip(total[column], times[column], strict=True)]
    table.add_section()
    row("all 22 of ResNet20v2", total)
    row("the whole network", measure_network(args.batch, args.groups, args.repeat))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
