"""One rank and one scaling for all modules of an adapter, as servers know no other."""

import torch

from smlora.adapters._factors import Factors
from smlora.transformers._weights import parameters_of


def _padded(tensor, dim, size):
    missing = list(tensor.shape)
    missing[dim] = size - tensor.shape[dim]
    return torch.cat([tensor, tensor.new_zeros(missing)], dim) if missing[dim] else tensor


def ranks_of(adapter):
    return {factors.A.shape[-2] for factors in (*adapter.experts.values(), *adapter.others.values())}


def _uniform(factors, rank, scaling):
    """The same delta W, with rows of zeros, and what is left of its scaling in B."""
    B = factors.B
    if factors.scaling != scaling:
        B = (B.double() * (factors.scaling / scaling)).to(B.dtype)
    return factors._replace(A=_padded(factors.A, -2, rank), B=_padded(B, -1, rank), scaling=scaling)


def uniform(adapter, rank):
    """The Adapter with this rank everywhere and the largest of its scalings."""
    scalings = {factors.scaling for factors in (*adapter.experts.values(), *adapter.others.values())}
    scaling = max(scalings, key=abs)
    parts = ({at: _uniform(factors, rank, scaling) for at, factors in part.items()} if scaling else part
             for part in (adapter.experts, adapter.others))
    experts, others = parts
    alpha = scaling * rank
    config = adapter.config | dict(r=rank, lora_alpha=int(alpha) if alpha == int(alpha) else alpha, rank_pattern={},
                                   alpha_pattern={}, use_rslora=False)
    return adapter._replace(config=config, experts=experts, others=others)


def with_both_projections(adapter):
    """With zeros for the projection of experts that has no adapter, as servers expect one for each."""
    experts = dict(adapter.experts)
    scaling = next(iter(experts.values())).scaling
    rank = adapter.config["r"]
    for path in dict.fromkeys(path for path, _ in experts):
        module = adapter.base.experts[path]
        present = next(factors for (other, _), factors in experts.items() if other == path)
        for name in parameters_of(module):
            E, first, second = getattr(module, name).shape
            inputs, outputs = (first, second) if module.is_transposed else (second, first)
            zeros = [torch.zeros(shape, dtype=present.A.dtype) for shape in ((E, rank, inputs), (E, outputs, rank))]
            experts.setdefault((path, name), Factors(*zeros, scaling, path))
    return adapter._replace(experts=experts)
