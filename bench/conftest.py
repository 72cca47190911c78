"""Puts the machine and the thread count beside every figure."""

import platform

import torch


def pytest_benchmark_update_machine_info(config, machine_info) -> None:
    machine_info.update(torch=torch.__version__, threads=torch.get_num_threads(), capability=torch.backends.cpu.get_cpu_capability())
    machine_info.update(machine=platform.machine())
