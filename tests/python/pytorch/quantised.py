"""Quantised weights for tests: the golden vectors of tests/golden, and random ones of every encoding."""

import functools
import hashlib
import json
import pathlib
import tarfile

import smlora
import torch

_GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden" / "golden.tar.xz"
_STORED_AS = {
    "U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "F32": torch.float32, "F16": torch.float16,
    "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
}
VALUES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@functools.cache
def _golden_files():
    with tarfile.open(_GOLDEN) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def golden_entries():
    """Of index.json, but for a row divisor that smlora does not have."""
    entries = json.loads(_golden_files()["index.json"])["files"]
    return [entry for entry in entries if entry.get("row_divisor", 127) == 127]


def read_golden(entry, device="cpu"):
    """{role: tensor} of an entry."""
    content = bytearray(_golden_files()[entry["file"]])
    begin = 8 + int.from_bytes(content[:8], "little")
    stored = {}
    for name, tensor in json.loads(content[8:begin]).items():
        first, last = tensor["data_offsets"]
        values = torch.frombuffer(content[begin + first : begin + last], dtype=torch.uint8).view(_STORED_AS[tensor["dtype"]])
        stored[name] = values.view(tensor["shape"]).to(device)
    return {role: stored[name] for role, name in entry["tensors"].items()}


class QuantState:
    """As much of bitsandbytes' as smlora reads."""

    def __init__(self, quant_type, shape, blocksize, absmax, code, state2=None, offset=None):
        self.quant_type, self.shape, self.blocksize, self.absmax, self.code = quant_type, shape, blocksize, absmax, code
        self.state2, self.offset, self.nested = state2, offset, state2 is not None


def quant_state(entry, roles):
    state2 = None
    if "double.scales" in roles:
        state2 = QuantState(None, None, entry["double_block"], roles["double.scales"], roles["double.table"])
    return QuantState(entry["encoding"], torch.Size(entry["shape"]), entry["block"], roles["scales"], roles["table"], state2,
                      roles.get("double.offset"))


def golden_weight(entry, roles):
    """Through the constructor that a user calls for this format."""
    codes, scales = roles["codes"], roles["scales"]
    if entry["encoding"] in ("nf4", "fp4"):
        return smlora.from_bnb(codes, quant_state(entry, roles))
    if entry["encoding"] == "int8":
        return smlora.from_bnb(codes, scales)
    if entry["encoding"] == "fp8":
        return smlora.from_fp8(codes, scales, entry["block"], entry["parts"])
    if entry["encoding"] == "nvfp4":
        return smlora.from_nvfp4(codes, scales, roles["global_scales"], entry["global_scale"] == "divisor", entry["parts"])
    if entry["encoding"] == "int4":
        return smlora.from_compressed_tensors(codes, scales, weight_shape=entry["shape"][1:])
    return {"mxfp4": smlora.from_mxfp4, "mxfp8": smlora.from_mxfp8}[entry["encoding"]](codes, scales)


def same_bits(got, expected):
    """NaNs are equal whatever their payload."""
    words = {4: torch.int32, 2: torch.int16}[got.element_size()]
    same = (got.contiguous().view(words) == expected.contiguous().view(words)) | (got.isnan() & expected.isnan())
    return got.dtype == expected.dtype and got.shape == expected.shape and bool(same.all())


OPTIONS = {
    "nf4": {}, "nf4_double": {"double": True}, "fp4": {"block": 32}, "int8": {}, "mxfp4": {}, "fp8": {"block": 24, "parts": 2},
    "mxfp8": {}, "nvfp4": {"parts": 2}, "int4": {"block": 32},
}
"""What smlora.quantize takes, by names for tests."""


def random_weight(name, E, rows, columns, device="cpu", dtype=torch.float32):
    values = (torch.randn(E, rows, columns, dtype=torch.float64) * columns**-0.5).to(device, dtype)
    return smlora.quantize(values, name.removesuffix("_double"), **OPTIONS[name])


def digest(weight):
    """Of all bytes."""
    found = hashlib.sha256()
    for tensor in weight.tensors().values():
        found.update(bytes(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).tolist()))
    return found.hexdigest()
