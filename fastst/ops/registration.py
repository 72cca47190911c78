"""What the registered operations have in common."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
_Key, _Keys = torch._C.DispatchKey, torch._C.DispatchKeySet
_DENSE = tuple(_Keys(key).raw_repr() for key in (_Key.CPU, _Key.CUDA))
_BESIDE = _Keys(_Key.ADInplaceOrView).raw_repr() | _Keys(_Key.AutogradFunctionality).raw_repr()  # of these, a dense tensor may have any
_BESIDE |= _Keys(_Key.AutocastCPU).raw_repr() | _Keys(_Key.AutocastCUDA).raw_repr()


class Operation:
    """A function as the operation `fastst::name` of torch's dispatcher, and a short way to it: by calling this object.

    Its inside runs with autocast off: it takes features in the dtype in which they come. Its outputs are contiguous, as the fake kernels say.
    (The function's annotations must be types, not strings: torch reads the schema from them.)

    The dispatcher calls Python and is called from it several times on the way to a kernel and back. After a kernel has filled the caches with
    features that takes long: nearly a tenth of a message passing and its gradients. So calls go there only where somebody between has work to do or
    has to see them: the compiler, a mode, the profiler; or for tensors that are not plain numbers in memory: subclasses, meta tensors, negative
    views, batches of gradients.
    """

    def __init__(self, name: str, function: Callable) -> None:
        self.name, self._run = name, _inside(function)
        self._registered = torch.library.custom_op(f"fastst::{name}", self._run, mutates_args=())
        self._dispatched: Any = getattr(torch.ops.fastst, name).default
        self.register_fake = self._registered.register_fake
        if name.endswith("_backward"):
            self.register_autograd(_no_second_derivative, lambda ctx, inputs, output: None)

    def register_autograd(self, backward: Callable, setup_context: Callable) -> None:
        self._registered.register_autograd(backward, setup_context=setup_context)
        self._differentiable = _differentiable(self.name, self._run, setup_context, backward)

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling() or _is_seen(args):
            return self._dispatched(*args)
        return self._differentiable.apply(*args) if torch.is_grad_enabled() else self._run(*args)


def operation(name: str) -> Callable[[Callable], Operation]:
    """Registers a function as the operation `fastst::name`."""
    return lambda function: Operation(name, function)


def _inside(function: Callable) -> Callable:
    @functools.wraps(function)
    def run(*args):
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


def _differentiable(name: str, run: Callable, setup_context: Callable, backward: Callable) -> Any:
    def forward(ctx, *inputs):  # and the context at once: with a `setup_context` of its own torch looks at the signature in every call
        output = run(*inputs)
        setup_context(ctx, inputs, output)
        return output

    return type(f"fastst_{name}", (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})


def _is_seen(args: tuple) -> bool:
    """Whether something stands between a call and its kernel."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
        or not all(_is_plain(argument) for argument in args if isinstance(argument, Tensor))
    )


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in _PLAIN and torch._C._dispatch_keys(tensor).raw_repr() & ~_BESIDE in _DENSE


def _no_second_derivative(ctx, *_):
    raise NotImplementedError(
        "fastst's operations can be differentiated once; for second derivatives run them inside fastst.ops.use_backend('reference'), on small graphs"
    )
