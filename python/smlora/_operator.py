"""Torch operators of smlora: how they are defined and how they reach the library in a few microseconds.

There are two kinds. *Raw* operators are calls of the library: new tensors out, no autograd. *Differentiable* ones are
what users call: their kernel for torch's Autograd keys is a Derivative over raw operators, so that a compiler that
traces through autograd sees only raw ones.

In eager mode with plain tensors the kernel below autograd is a function of ours, and calling it directly saves going
through torch's dispatcher again, half of the cost of a call, in forward as in backward. A tracer, a torch_dispatch mode or a
transform of torch.func puts further keys between the two; then the call takes the long way."""

import functools
import operator
from typing import NamedTuple

import torch
from torch.autograd import forward_ad
from torch._functorch.utils import enable_single_level_autograd_function

from smlora import _native
from smlora._forward_mode import has_tangent, in_forward_mode, unpack_dual
from smlora._library import place

_library = torch.library.Library("smlora", "DEF")

# Weights are read as they lie in memory: a compiler must not choose strides of its own for the inputs.
_TAGS = (
    torch.Tag.pt2_compliant_tag,
    getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order),
)

# The autograd.Function of one level of torch.func's transforms. A kernel is called once for each level, with that level's
# tensors, so that its Function must not start the transforms again, as autograd.Function itself does. Its forward takes
# (keys, *arguments), keeps `keys` in ctx.keys, and calls raw operators by `below_autograd`; its backward by `raw_calls`.
Derivative = torch.autograd.function._SingleLevelFunction


def _wants_gradient(arguments):
    if not torch.is_grad_enabled():
        return False
    for argument in arguments:  # no any(..): a generator costs a microsecond
        if isinstance(argument, torch.Tensor) and argument.requires_grad:
            return True
    return False


def _wants_derivative(arguments):
    """Whether a result must be tied to its arguments: a gradient is wanted, or forward-mode differentiation is on."""
    return in_forward_mode() or _wants_gradient(arguments)


def _refuse_derivative(name, arguments):
    """In the kernel of a raw operator for torch's Autograd keys. Calls by the Derivatives pass below it; graphs that make_fx
    traced reach it, and users who call the operator."""
    if _wants_gradient(arguments) or (in_forward_mode() and any(map(has_tangent, arguments))):
        raise NotImplementedError(
            f"smlora::{name}: has no derivative; call smlora's functions, which have, not the operator or a graph that "
            "make_fx or torch.compile made of them without gradients"
        )


class _Level(NamedTuple):
    """Stands for the keys of a kernel that a transform of torch.func has entered: what torch differentiates there.
    Function.apply switches both modes off, but the levels below have derivatives of their own to take."""

    gradients: bool
    tangents: bool


def _apply(function, keys, *arguments):
    """Applies a Derivative in a kernel for an Autograd key that was entered with `keys`."""
    if torch._C._are_functorch_transforms_active():
        level = _Level(torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled())
        with enable_single_level_autograd_function():
            return function.apply(level, *arguments)
    return function.apply(keys, *arguments)


_BACKENDS = (torch._C.DispatchKey.CPU, torch._C.DispatchKey.CUDA)
_AUTOCAST = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def _keys(*names):
    sets = (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name)) for name in names)
    return functools.reduce(operator.or_, sets)


# The keys of every plain tensor and thread that mean nothing to a raw operator.
_IDLE = _keys("AutogradCPU", "AutogradCUDA", "ADInplaceOrView", "BackendSelect", *_AUTOCAST.values())


@functools.cache
def _is_plain(keys):
    """Whether a raw operator is its kernel and nothing else under `keys`, the bits of a DispatchKeySet."""
    return (torch._C.DispatchKeySet.from_raw_repr(keys) - _IDLE).highestPriorityTypeId() in _BACKENDS


def raw_calls(ctx, *gradients):
    """How the backward of a Derivative calls raw operators, `run(operator, *arguments)`; None if it must do without, as
    derivatives of its results may be wanted, and raw operators have none. `gradients`: what backward is given."""
    if torch.is_grad_enabled() or in_forward_mode():
        return None
    if isinstance(ctx.keys, _Level):
        return Operator.dispatch
    keys = ctx.keys | torch._C._dispatch_tls_local_include_set().raw_repr()
    for gradient in gradients:
        if gradient is not None:
            keys |= torch._C._dispatch_keys(gradient).raw_repr()
    return Operator.run_kernel if _is_plain(keys) else Operator.dispatch


def _on_its_device(kernel):
    """The library launches on the current device; make it that of the first tensor. If that is on the CPU and another one is
    not, the kernel refuses."""

    @functools.wraps(kernel)
    def on_device(first, *rest):
        if first.get_device() == torch.cuda.current_device() or not first.is_cuda:
            return kernel(first, *rest)
        with torch.cuda.device(first.device):
            return kernel(first, *rest)

    return on_device


def _on_one_device(schema, fake):
    """A fake kernel makes its results on the device of the first tensor: uninitialised memory, if it is called because
    another tensor has no data, such as weights that were never loaded."""
    names = [argument.split()[-1].partition("=")[0] for argument in schema.partition("(")[2].partition(")")[0].split(",")]

    @functools.wraps(fake)
    def on_one_device(first, *rest):
        for name, argument in zip(names[1:], rest):
            for tensor in argument if isinstance(argument, (list, tuple)) else [argument]:
                if isinstance(tensor, torch.Tensor) and tensor.device != first.device:
                    raise ValueError(
                        f"{name}: expected a tensor on {first.device}, where {names[0]} is, got one on {tensor.device}"
                    )
        return fake(first, *rest)

    return on_one_device


def save_for_tangents(ctx, *tensors):
    """In the forward of a Derivative: `tensors` are the first of ctx.saved_tensors in its jvp."""
    if in_forward_mode():
        ctx.save_for_forward(*tensors)


def tangent_rule(rule):
    """The jvp of a Derivative: `rule(ctx, saved, *tangents)`, with the tensors that were saved as they are without tangents,
    and with the tangents of its arguments after the key set, None for those that have none."""

    @functools.wraps(rule)
    def jvp(ctx, _, *tangents):
        # Torch switches tangents off here, but transforms of torch.func below this one have some of their own.
        with forward_ad._set_fwd_grad_enabled(True):
            saved = [None if tensor is None else unpack_dual(tensor)[0] for tensor in ctx.saved_tensors]
            return rule(ctx, saved, *tangents)

    return staticmethod(jvp)


def wide(tensor):
    """In the type in which the library sums: fp64 for fp64, else fp32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class Operator:
    """`call` it as a user does. `kernel(*arguments)` works on real tensors, `fake(*arguments)` gives tensors of the
    same shapes, strides and types. The first argument is a tensor and all arguments are positional."""

    def __init__(self, schema, kernel, fake):
        self.name = schema.partition("(")[0]
        self._kernel = _on_its_device(kernel) if torch.version.cuda else kernel
        self.kernel, self.fake = kernel, fake
        _library.define(schema, tags=_TAGS)
        _library.impl(self.name, kernel, "CPU")
        _library.impl(self.name, self._kernel, "CUDA")
        torch.library.register_fake(f"smlora::{self.name}", _on_one_device(schema, fake), lib=_library)
        self.call = getattr(torch.ops.smlora, self.name).default
        self._lower = self.call

    def dispatch(self, *arguments):
        return self.call(*arguments)

    def run_kernel(self, *arguments):
        """The same on plain tensors, if no derivative is wanted."""
        return (self._kernel if arguments[0].is_cuda else self.kernel)(*arguments)

    def below_autograd(self, keys, *arguments):
        """Calls the operator from a kernel for an Autograd key. `keys`: the bits of the key set that the kernel was entered
        with, or the first argument of a Derivative's forward."""
        if isinstance(keys, _Level):
            with (
                torch._C._AutoDispatchBelowAutograd(),
                torch.set_grad_enabled(keys.gradients),
                forward_ad._set_fwd_grad_enabled(keys.tangents),
            ):
                return self._lower(*arguments)
        if _is_plain(keys):
            return self.run_kernel(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return self.call(*arguments)

    def differentiable(self, function, *, over, flag_at=None):
        """Registers the derivative. `function` is a Derivative, which is entered if a derivative is wanted. Otherwise `over`,
        a raw operator, is called with the arguments and, at `flag_at`, False for what else it can give. The first result of
        either is the operator's. What else `over` gives, backward does without under transforms of torch.func."""
        count = len(over.call._schema.returns)

        def lower(*arguments):
            # A raw operator would hide the levels below from their own derivatives.
            if flag_at is not None:
                arguments = (*arguments[:flag_at], *arguments[flag_at + 1 :])
            result = self.call(*arguments)
            return result if count == 1 else (result, *[None] * (count - 1))

        over._lower = lower

        def autograd(keyset, *arguments):
            keys = keyset.raw_repr()
            if _wants_derivative(arguments):
                result = _apply(function, keys, *arguments)
            else:
                if flag_at is None:
                    result = over.below_autograd(keys, *arguments)
                elif flag_at == len(arguments):
                    result = over.below_autograd(keys, *arguments, False)
                else:
                    result = over.below_autograd(keys, *arguments[:flag_at], False, *arguments[flag_at:])
            return result[0] if isinstance(result, tuple) else result

        _library.impl(self.name, autograd, "Autograd", with_keyset=True)

    def without_derivative(self):
        """Makes a raw operator refuse what it would drop: the gradients and tangents of a caller that is not below
        autograd. Returns the operator."""

        def autograd(keyset, *arguments):
            _refuse_derivative(self.name, arguments)
            return self.below_autograd(keyset.raw_repr(), *arguments)

        _library.impl(self.name, autograd, "Autograd", with_keyset=True)
        return self

    def autocast(self, positions, companions):
        """Under torch.autocast the tensors at these positions are cast to its type. `companions` may stay in fp32, and are
        cast if they are of another type that is not autocast's."""
        positions, companions = frozenset(positions), frozenset(companions)

        def cast_on(device_type, key):
            below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

            def kernel(*arguments):
                dtype = torch.get_autocast_dtype(device_type)
                cast = list(arguments)
                for i in positions | companions:
                    kept = (dtype, torch.float32) if i in companions else (dtype,)
                    if cast[i] is not None and cast[i].dtype in _CASTABLE and cast[i].dtype not in kept:
                        cast[i] = cast[i].to(dtype)
                with torch._C._ExcludeDispatchKeyGuard(below):
                    return self.call(*cast)

            _library.impl(self.name, kernel, key)

        for device_type, key in _AUTOCAST.items():
            cast_on(device_type, key)


def with_default(argument):
    """None, or False, unless given: torch leaves it out of calls then."""
    return f"{argument}={'None' if '?' in argument else 'False'}"


def schema_of(name, native_name, *, without=(), outputs=None, defaults=0):
    """torch's schema of the operator `name`, with the arguments of the library's `native_name` but for those `without`. Lists
    that may be missing, and the last `defaults` arguments, have a default."""
    arguments, results = _native.schemas[native_name]
    arguments = [argument for argument in arguments.split(", ") if argument.split()[1] not in without]
    given = len(arguments) - defaults
    arguments = [with_default(a) if "[]?" in a or at >= given else a for at, a in enumerate(arguments)]
    count = len(results.split(", ")) if outputs is None else outputs
    return f"{name}({', '.join(arguments)}) -> ({', '.join(['Tensor'] * count)})"


def library_operator(name, outputs):
    """The raw operator that is one call of the library, see native/signatures.def. `outputs(*arguments)` makes the tuple of
    tensors that the library writes: memory on real tensors, shapes on fake ones."""
    native = getattr(_native, name)
    arguments, results = (text.split(", ") for text in _native.schemas[name])
    names = tuple(argument.split()[1] for argument in arguments)
    code = outputs.__code__
    assert code.co_varnames[: code.co_argcount] == names, f"{name}: expected the arguments {names}"
    alone = len(results) == 1
    # What stands for the others where only so many arguments are given.
    defaults = outputs.__defaults__ or ()
    absent = {len(names) - count: defaults[len(defaults) - count:] for count in range(len(defaults) + 1)}

    def kernel(*arguments):
        made = outputs(*arguments)
        native(*place(arguments[0]), *arguments, *absent[len(arguments)], *made)
        return made[0] if alone else made

    def fake(*arguments):
        made = outputs(*arguments)
        return made[0] if alone else made

    return Operator(schema_of(name, name, defaults=len(defaults)), kernel, fake)


_CASTABLE = (torch.float32, torch.float16, torch.bfloat16)
