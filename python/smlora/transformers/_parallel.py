"""Models that are spread over the ranks of a job: the part of PEFT's adapters that meets the weights which this rank holds.

An adapter is a parameter of the whole model on every rank, or sharded by FSDP. The mean over all ranks of its gradients is the
gradient of the mean loss, as with any other parameter: what FSDP, DDP and Transformers' Trainer make of them."""

import functools
import weakref
from fractions import Fraction
from typing import NamedTuple

import torch

from smlora.transformers._names import NAME
from smlora.transformers._patching import patch

if torch.distributed.is_available():
    from torch.distributed.tensor import DTensor, Partial
else:
    DTensor = ()

# ---- an adapter that is sharded itself ----------------------------------------------------------------------------------


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, factor):
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def is_spread(tensor):
    return isinstance(tensor, DTensor)


def whole(name, tensor):
    """All of a factor of an adapter, also where FSDP shards it as a unit of its own, whose forward nobody calls: then its
    gradient is made here as FSDP makes it, the mean over the ranks. name: for messages."""
    if tensor.dim() != 2:
        raise ValueError(
            f"{name}: expected a matrix, got {list(tensor.shape)}: FSDP1 shards it as a unit of its own, which nobody gathers; "
            "wrap decoder layers, by transformer_auto_wrap_policy, or use FSDP2 (fsdp_version: 2 of accelerate)"
        )
    if not is_spread(tensor):
        return tensor
    mesh = tensor.device_mesh
    full = tensor.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    return _ScaleGradient.apply(full, 1 / mesh.size())


# ---- weights of which this rank holds a part ----------------------------------------------------------------------------


class Layout(NamedTuple):
    """Of a parameter that is a DTensor."""

    mesh: object
    placements: tuple

    def axis(self, name):
        """(mesh, placement) of the dimension of this name, or of the only one; None if there is none."""
        names = self.mesh.mesh_dim_names or ()
        if name in names:
            return self.mesh[name], self.placements[names.index(name)]
        return (self.mesh, self.placements[0]) if self.mesh.ndim == 1 else None


def layout_of(module, parameter):
    """The Layout of the module's parameter, outside its forward, where it is not a plain tensor yet; or None."""
    tensor = module._parameters.get(parameter)
    return Layout(tensor.device_mesh, tuple(tensor.placements)) if is_spread(tensor) else None


class _SumOverRanks(torch.autograd.Function):
    """Of the gradient alone."""

    @staticmethod
    def forward(ctx, tensor, group):
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None


def _summed(tensor, mesh):
    """The ranks of `mesh` see the same tokens, so that each of their gradients is a part of the same sum."""
    return tensor if mesh is None or mesh.size() == 1 else _SumOverRanks.apply(tensor, mesh.get_group())


class Dispatch(NamedTuple):
    """How Transformers' expert parallelism brings tokens to a module of experts."""

    implementation: str
    """"auto", "all_to_all" or "all_reduce"."""
    ranks_of_experts: object
    """The mesh of the ranks that hold the model's experts together."""
    ranks_of_tokens: object
    """The mesh of the ranks that see the same tokens; None in versions that have none."""


_dispatches = weakref.WeakKeyDictionary()
"""{module of experts: Dispatch}"""


def _first_expert(module, parameter, layout, held, whole):
    """Which of the model's experts is the first of the `held` ones of this rank."""
    first = getattr(module, "local_expert_offset", None)
    if first is None and layout is not None and layout.axis("ep") is not None:
        mesh, _ = layout.axis("ep")
        if mesh.size() * held == whole:
            first = mesh.get_local_rank() * held
    if first is None:
        raise ValueError(
            f'{parameter}: expected all {whole} experts of the adapter, a DTensor on a mesh with a dimension "ep", or a module '
            f"with local_expert_offset, got {held} experts, of which nothing says which they are"
        )
    if not 0 <= first <= whole - held:
        raise ValueError(f"local_expert_offset: expected 0 to {whole - held} for {held} of {whole} experts, got {first}")
    return first


def _mesh_of_tokens(module):
    if module not in _dispatches and getattr(module, "_is_expert_parallel", False):
        raise ValueError(
            "expected smlora.transformers.register() before from_pretrained(.., distributed_config=..), got a model whose "
            "experts were spread over ranks before it"
        )
    dispatch = _dispatches.get(module)
    return None if dispatch is None else dispatch.ranks_of_tokens


def _cut(tensor, dim, axis):
    """This rank's part of a dimension that tensor parallelism splits, where gate and up are beside each other: of each."""
    mesh, placement = axis
    sizes = getattr(placement, "split_factor", 1), mesh.size(), -1
    return tensor.unflatten(dim, sizes).select(dim + 1, mesh.get_local_rank()).flatten(dim, dim + 1)


def part_of(adapter, weight, module, parameter, layout):
    """The part of the whole model's adapter that belongs to `weight` [E, in, out], what this rank holds of the module's
    parameter. layout: of the parameter before its forward. Every rank makes a gradient for all of the adapter, zeros for the
    rest."""
    A, B, scaling = adapter
    experts, inputs, outputs = weight.shape
    if (experts, inputs, outputs) == (A.shape[0], A.shape[2], B.shape[1]):
        return adapter
    if experts < A.shape[0]:
        first = _first_expert(module, parameter, layout, experts, A.shape[0])
        A, B = (_summed(factor, _mesh_of_tokens(module))[first:first + experts] for factor in (A, B))
    axis = None if layout is None else layout.axis("tp")
    dims = (1, 2) if module.is_transposed else (2, 1)
    if axis is not None and getattr(axis[1], "dim", None) in dims:
        A, B = (_summed(factor, axis[0]) for factor in (A, B))
        if axis[1].dim == dims[0]:
            A = _cut(A, 2, axis)
        else:
            B = _cut(B, 1, axis)
    if (experts, inputs, outputs) != (A.shape[0], A.shape[2], B.shape[1]):
        raise ValueError(
            f"{parameter}: expected experts of {A.shape[2]} inputs and {B.shape[1]} outputs, as the adapter has, got {inputs} "
            f"and {outputs}: a part of each expert, of which nothing says which it is. smlora knows the parts of DTensors on a "
            'mesh with a dimension "tp"; whole experts on each rank, with DistributedConfig(fsdp_size=N, ep_size=N), need none'
        )
    return adapter._replace(lora_A=A, lora_B=B)


# ---- Transformers' expert parallelism -----------------------------------------------------------------------------------


def _install_forward(original):
    @functools.wraps(original)
    def install_forward(self, module, *arguments, **named):
        if named.get("ep_implementation") == "deepgemm_megamoe" and module.config._experts_implementation == NAME:
            raise ValueError(
                f'ep_implementation: expected "auto", "all_to_all" or "all_reduce" with experts_implementation="{NAME}", got '
                '"deepgemm_megamoe", which has experts of its own'
            )
        ranks = arguments[0] if arguments else named.get("ep_mesh")
        _dispatches[module] = Dispatch(named.get("ep_implementation", "auto"), ranks, named.get("tp_mesh"))
        return original(self, module, *arguments, **named)

    return install_forward


class Arrival(NamedTuple):
    """What of the tokens of a rank arrives at its experts, in one of the ways in which it may."""

    rows_per_token: Fraction = Fraction(1)
    """How many rows arrive for each token of the rank's batch, on average."""
    is_average: bool = False
    """Whether their number differs by rank and step."""
    one_expert: bool = False
    """Whether each row has one expert and no gate; else all choices of its token, those of other ranks left out."""


def arrivals(module, top_k):
    """The ways that a training step may take."""
    dispatch = _dispatches.get(module)
    if dispatch is None:
        return [Arrival()]
    sharing = 1 if dispatch.ranks_of_tokens is None else dispatch.ranks_of_tokens.size()
    ways = []
    if dispatch.implementation in ("auto", "all_to_all"):
        ways.append(Arrival(Fraction(top_k, sharing), is_average=True, one_expert=True))
    if dispatch.implementation == "all_reduce" or (dispatch.implementation == "auto" and _share_tokens(dispatch)):
        # "auto" takes it where no gradient goes to the tokens, as before the first adapter.
        ways.append(Arrival())
    return ways


def _share_tokens(dispatch):
    if dispatch.ranks_of_tokens is None:
        return False
    meshes = dispatch.ranks_of_experts, dispatch.ranks_of_tokens
    experts, tokens = (torch.distributed.get_process_group_ranks(mesh.get_group()) for mesh in meshes)
    return experts == tokens


def local_shape(module, parameter):
    """Of a parameter that is a DTensor, what this rank has of it in the module's forward: FSDP gathers its part before."""
    tensor = module._parameters[parameter]
    shape = list(tensor.shape)
    if hasattr(module, "num_experts"):
        shape[0] = module.num_experts
    axis = Layout(tensor.device_mesh, tuple(tensor.placements)).axis("tp")
    dim = None if axis is None else getattr(axis[1], "dim", None)
    if dim in (1, 2):
        shape[dim] //= axis[0].size()
    return shape


def _dispatch_tokens(original):
    """The gates are applied where the tokens came from; here they are ones."""

    @functools.wraps(original)
    def dispatch_tokens(self, *arguments, **named):
        tokens, experts, gates, state = original(self, *arguments, **named)
        gates._smlora_ones = True
        return tokens, experts, gates, state

    return dispatch_tokens


def are_ones(gates):
    """Whether gates are known to be ones without a gradient; their values are not read."""
    return getattr(gates, "_smlora_ones", False)


def register_parallel():
    try:
        from transformers.distributed.expert_parallel import AllToAllEP, EpDispatchExpertsParallel
    except ImportError:  # older
        return
    patch(EpDispatchExpertsParallel, "install_forward", _install_forward)
    if hasattr(AllToAllEP, "_dispatch_tokens"):
        patch(AllToAllEP, "_dispatch_tokens", _dispatch_tokens)
