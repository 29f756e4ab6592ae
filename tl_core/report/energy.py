"""A rough estimate of a run's energy from what is always known: the CPU seconds of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from tl_core.report.templates import percent

# Of a busy core, by the processors' rated power over their cores: about 4 W on servers with many cores (AMD EPYC 9654:
# 360 W, 96 cores), up to 15 W on desktops (AMD Ryzen 7 7700X: 105 W, 8 cores; Intel Core i5-13600K: 125 W, 14 cores).
WATTS = (4.0, 15.0)


def energy(cpu: Mapping[str, float], watts: tuple[float, float] = WATTS) -> str:
    """CPU time and the energy that it stands for, in sentences. cpu: seconds by step, of one step at least."""
    seconds = sum(cpu.values())
    low, high = (_watt_hours(seconds * each / 3600) for each in watts)
    most = max(cpu, key=lambda step: cpu[step])
    share = f", {percent(cpu[most] / seconds)} of it in {most}" if seconds > 0 and len(cpu) > 1 else ""
    return (
        f"{_time(seconds)} of CPU time{share}. Estimate, nothing was measured: {low} to {high}, if a busy core takes "
        f"{watts[0]:g} to {watts[1]:g} W. With a figure of your own: CPU seconds times watts per core, over 3,600, are "
        "watt-hours. Memory, disks, cooling and GPUs come on top."
    )


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _watt_hours(value: float) -> str:
    amount, unit = (value / 1000, "kWh") if value >= 1000 else (value, "Wh")
    return f"{amount:.2g} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
