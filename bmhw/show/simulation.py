# SPDX-License-Identifier: Apache-2.0
"""What a simulation of a trained neuron gave, as JSON values and as lines for people."""

from typing import Any

import numpy as np

from bmhw.hdl.neurons.design import Design
from bmhw.sim.simulation import Report
from bmhw.sim.trained import TrainedNeuron

__all__ = ["print_simulation", "simulation_result"]


def simulation_result(
    neuron: TrainedNeuron, design: Design, report: Report, seed: int, seconds: float
) -> dict[str, Any]:
    """Everything as plain values; the error is that of the integer model against the floating-point layer."""
    error = np.abs(neuron.expected - neuron.real)
    mean_real, first = float(np.abs(neuron.real).mean()), report.first_mismatch
    return {
        "passed": report.passed,
        "model": neuron.model,
        "layer": neuron.layer,
        "channel": neuron.channel,
        "seed": seed,
        "design": design.to_dict(),
        "module": design.name,
        "latency_cycles": report.latency,
        "vectors": neuron.expected.size,
        "mismatches": report.mismatches,
        "error": report.error,
        "first_mismatch": None if first is None else vars(first),
        "float_error_mean_abs_steps": float(error.mean()),
        "float_error_max_abs_steps": float(error.max()),
        "float_error_mean_relative": float(error.mean()) / mean_real if mean_real else None,
        "float_error_max_relative": float(error.max()) / mean_real if mean_real else None,
        "float_output_mean_abs_steps": mean_real,
        "clock_cycles": report.cycles,
        "simulator": report.simulator.name,
        "simulator_version": report.simulator.version,
        "build_seconds": report.build_seconds,
        "run_seconds": report.run_seconds,
        "total_seconds": seconds,
        "waveform": None if report.waveform is None else str(report.waveform),
    }


def print_simulation(neuron: TrainedNeuron, design: Design, report: Report, result: dict[str, Any]) -> None:
    parameters = design.to_dict()
    architecture = ", ".join(
        f"{name} {parameters[name]}"
        for name in ("form", "maximum", "end", "multiplier", "adder")
        if name in parameters
    )
    vectors = result["vectors"]
    right = report.outputs.size - report.mismatches
    print(f"neuron      {neuron}: {design.name} ({architecture})")
    print(
        f"simulation  {report.simulator}; built in {report.build_seconds:.1f} s, "
        f"{vectors} vectors in {report.run_seconds:.1f} s"
    )
    verdict = "PASS" if report.passed else "FAIL"
    print(f"outputs     {right} of {vectors} equal the integer model in every bit: {verdict}")
    if report.cycles:
        per_vector = report.cycles / (report.full_rate_vectors if design.form == "serial" else vectors)
        print(f"clock       latency {report.latency} cycles, {per_vector:.1f} cycles a vector at full rate")
    mean, largest = result["float_error_mean_abs_steps"], result["float_error_max_abs_steps"]
    print(
        f"error       of the integers against the floating-point layer, in steps of "
        f"{design.format.output[0]}: mean {mean:.2f}, largest {largest:.2f}"
    )
    if result["float_error_mean_relative"] is not None:
        print(
            f"            mean {result['float_error_mean_relative']:.2%}, largest "
            f"{result['float_error_max_relative']:.2%} of the mean magnitude, "
            f"{result['float_output_mean_abs_steps']:.1f} steps"
        )
    if report.waveform is not None:
        print(f"waveform    {report.waveform}")
