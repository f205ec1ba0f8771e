"""The product for a single token; see smlora.scattermoe. Not differentiable."""

import torch

from smlora._routing import route
from smlora.scattermoe.kernels.ops import scatter2scatter


@torch.no_grad()
def single2scatter(X, W, expert_idxs):
    """Y_j = X_j W_e with e = expert_idxs[0, j]. X [1, K] or [k, K], expert_idxs [1, k]; returns [k, N]."""
    k = expert_idxs.size(1)
    routing = route(expert_idxs.reshape(-1, k // X.size(0)), W.size(0), index_dtype=torch.int64)
    return scatter2scatter(X, W, routing.sorted_expert_idxs, routing.sorted_scattered_idxs, routing.top_k)
