"""What the registered operations have in common."""

import functools
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.library import CustomOpDef


def operation(name: str) -> Callable[[Callable], CustomOpDef]:
    """Registers a function as the operation `fastst::name`.

    Its inside runs with autocast off: it takes features in the dtype in which they come. Its outputs are contiguous, as the fake kernels say.
    (The function's annotations must be types, not strings: torch reads the schema from them.)
    """

    def register(function: Callable) -> CustomOpDef:
        @functools.wraps(function)
        def run(*args):
            device = args[0].device.type
            with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
                result = function(*args)
            return tuple(map(_own, result)) if isinstance(result, tuple) else _own(result)

        registered = torch.library.custom_op(f"fastst::{name}", run, mutates_args=())
        if name.endswith("_backward"):
            registered.register_autograd(_no_second_derivative)
        return registered

    return register


def _own(result: Tensor) -> Tensor:
    """Contiguous, and not a view: torch lets nobody change a view in place that an operation returned."""
    result = result.contiguous()
    return result.new_empty(0).set_(result.untyped_storage(), result.storage_offset(), result.shape, result.stride()) if result._is_view() else result


def _no_second_derivative(ctx, *_):
    raise NotImplementedError(
        "fastst's operations can be differentiated once; for second derivatives run them inside fastst.ops.use_backend('reference'), on small graphs"
    )
