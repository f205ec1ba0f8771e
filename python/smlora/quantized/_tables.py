"""The values of bitsandbytes' codes."""

import torch

# Quantiles of the normal distribution, zero among them (QLoRA, appendix E).
_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]
_FP4 = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]  # twelfths; negative ones follow


def table_of(encoding, device):
    """fp32 [16] of nf4 or fp4."""
    if encoding == "nf4":
        return torch.tensor(_NF4, dtype=torch.float32, device=device)
    twelfths = torch.tensor([*_FP4, 0.0, *[-value for value in _FP4[1:]]], dtype=torch.float32)
    return (twelfths / 12).to(device)


def dynamic_table(device):
    """fp32 [256], ascending: of signed numbers up to 1 with a decimal exponent whose length gives the number of their
    fraction's steps ("8-bit optimizers via block-wise quantization"); what double quantisation has for scales."""
    values = [0.0, 1.0]
    for exponent in range(7):
        ends = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32, device="cpu")
        magnitudes = 10 ** (exponent - 6) * ((ends[:-1] + ends[1:]) / 2)
        values += [*magnitudes.tolist(), *(-magnitudes).tolist()]
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)
