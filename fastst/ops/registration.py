"""What the registered operations have in common."""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fastst", "FRAGMENT")
KERNELS: dict[str, Callable[..., Any]] = {}  # by the names of the dispatcher, for whoever wants to look inside


class Operation:
    """A function as the operation `fastst::name` of torch's dispatcher, to be called like a function.

    Two operations, in truth: `fastst::name` records what its gradients need and calls `fastst::name_kernel`, which computes. So whoever stands
    between a call and its kernel (the compiler, a fake or any other mode, the profiler, autocast) sees both, and no kernel runs past them. Where
    no gradients are wanted the kernel is called at once.

    Its inside runs with autocast off: it takes features in the dtype in which they come. Its outputs are contiguous, as the fake kernels say.
    (The function's annotations must be types, not strings: torch reads the schema from them.)
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        schema, kernel = torch.library.infer_schema(function, mutates_args=()), _inside(function)
        for part in (name, f"{name}_kernel"):
            _LIBRARY.define(part + schema, tags=torch.Tag.pt2_compliant_tag)
            _LIBRARY.impl(part, kernel, "CompositeExplicitAutograd")
            KERNELS[f"fastst::{part}"] = kernel
        self._operation, self._kernel = (getattr(torch.ops.fastst, part).default for part in (name, f"{name}_kernel"))
        if name.endswith("_backward"):
            self.register_autograd(_no_second_derivative, lambda ctx, inputs, output: None)

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """What the outputs are like, without numbers."""
        for part in (self.name, f"{self.name}_kernel"):
            torch.library.register_fake(f"fastst::{part}", fake, lib=_LIBRARY)
        return fake

    def register_autograd(self, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
        kernel = self._kernel

        def forward(ctx: Any, *inputs: Any) -> Any:
            # The context at once: with a `setup_context` of its own torch looks at the signature in every call.
            output = kernel(*inputs)
            setup_context(ctx, inputs, output)
            return output

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        function: Any = type(f"fastst_{self.name}", (torch.autograd.Function,), members)
        _LIBRARY.impl(self.name, function.apply, "Autograd")

    def __call__(self, *args: Any) -> Any:
        recorded = torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in args)
        return self._operation(*args) if recorded else self._kernel(*args)


def operation(name: str) -> Callable[[Callable[..., Any]], Operation]:
    """Registers a function as the operation `fastst::name`."""
    return lambda function: Operation(name, function)


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any) -> Any:
        device = args[0].device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                result = function(*args)
        else:
            result = function(*args)
        return tuple(map(_own, result)) if isinstance(result, tuple) else _own(result)

    return run


def _own(result: Tensor) -> Tensor:
    """Contiguous, and not a view: torch lets nobody change a view in place that an operation returned."""
    result = result.contiguous()
    return result.new_empty(0).set_(result.untyped_storage(), result.storage_offset(), result.shape, result.stride()) if result._is_view() else result


def _no_second_derivative(ctx: Any, *_: Any) -> NoReturn:
    raise NotImplementedError(
        "fastst's operations can be differentiated once; for second derivatives run them inside fastst.ops.use_backend('reference'), on small graphs "
        "in which no edge comes twice"
    )
