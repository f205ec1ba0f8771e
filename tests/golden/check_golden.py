#!/usr/bin/env python3
"""Checks the golden vectors: decodes them by the formulas of README.md and compares bit by bit.

    check_golden.py [FOLDER]        files in a folder instead of golden.tar.xz

Uses numpy alone, so that none of the libraries that wrote the vectors takes part. Prints what differs and exits with 1;
exits with 77 (skipped) where numpy is missing."""

import json
import pathlib
import sys
import typing

import archive

try:
    import numpy as np
except ImportError:
    print("needs numpy: run tools/python_environment")
    sys.exit(77)

ENCODINGS = {"nf4", "fp4", "int8", "mxfp4", "fp8", "mxfp8", "nvfp4", "int4"}
STORED_AS = {"U8": np.uint8, "I8": np.int8, "I32": np.int32, "F32": np.float32, "F16": np.float16, "BF16": np.uint16,
             "F8_E4M3": np.uint8, "F8_E8M0": np.uint8}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


class Tensor(typing.NamedTuple):
    """A tensor of a file: its type as safetensors calls it, and its values, as bits where numpy lacks the type."""
    type: str
    values: np.ndarray


def read_safetensors(content):
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:begin]).items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(content[begin + first:begin + last], STORED_AS[entry["dtype"]])
        tensors[name] = Tensor(entry["dtype"], values.reshape(entry["shape"]))
    return tensors


# ---- Number formats --------------------------------------------------------------------------------------------------


def e4m3_values():
    """1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, NaN where all bits but the sign are set."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    magnitude = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(8.0 + mantissa, exponent - 10))
    magnitude[bits & 127 == 127] = np.nan
    return np.where(bits & 128, -magnitude, magnitude).astype(np.float32)


E4M3 = e4m3_values()


def as_fp32(tensor):
    """The values of a tensor of scales. A byte is 2^(byte - 127), which is infinity for 255, but as e8m0 NaN."""
    if tensor.type == "F8_E4M3":
        return E4M3[tensor.values]
    if tensor.type == "BF16":
        return (tensor.values.astype(np.uint32) << 16).view(np.float32)
    if tensor.type in ("U8", "F8_E8M0"):
        power = np.ldexp(np.float32(1), tensor.values.astype(np.int32) - 127)
        return np.where((tensor.type == "F8_E8M0") & (tensor.values == 255), np.float32(np.nan), power)
    return tensor.values.astype(np.float32)


def bits_of(values, name):
    """fp32 values, rounded to nearest even to f32, bf16 or f16, as bits."""
    if name == "f16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    if name == "f32":
        return bits
    # bf16 is the upper half. Half of its last place, less one if that place is even, carries into it or does not.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def is_nan(bits, name):
    sign_off, infinity = {"f32": (0x7FFFFFFF, 0x7F800000), "bf16": (0x7FFF, 0x7F80), "f16": (0x7FFF, 0x7C00)}[name]
    return (bits & sign_off) > infinity


def nibbles(values, high_first=False):
    """Codes of 4 bits from bytes or larger integers: along the last axis, the lowest nibble first unless said."""
    values = np.ascontiguousarray(values).view(np.uint8)  # the lowest byte is the first one
    low, high = values & 15, values >> 4
    return np.stack((high, low) if high_first else (low, high), -1).reshape(*values.shape[:-1], -1)


# ---- Formulas: each gives the fp32 values [E, rows, columns] ---------------------------------------------------------


def along_columns(scales, block):
    return np.repeat(scales, block, -1)


def scales_of_blocks(entry, tensors):
    """nf4, fp4: the scales, decoded where they are quantised themselves. The product is rounded before the sum."""
    scales = tensors["scales"].values
    if "double.scales" not in tensors:
        return scales
    outer = np.repeat(tensors["double.scales"].values, entry["double_block"])[:scales.size]
    return tensors["double.table"].values[scales] * outer + tensors["double.offset"].values


def decode_table(entry, tensors):
    """nf4, fp4: blocks count along all values in their order, so that they may go on in the next row."""
    count = np.prod(entry["shape"])
    codes = nibbles(tensors["codes"].values.ravel(), high_first=True)[:count]
    scales = np.repeat(scales_of_blocks(entry, tensors), entry["block"])[:count]
    return tensors["table"].values[codes] * scales


def decode_int8(entry, tensors):
    codes = tensors["codes"].values.astype(np.float32)
    scales = tensors["scales"].values.reshape(*codes.shape[:2], 1)
    return codes * scales * (np.float32(1) / np.float32(entry["row_divisor"]))


def decode_mxfp4(entry, tensors):
    """The power of two is applied to the value, because 2^128 is no fp32 number but half of it is."""
    codes, scales = nibbles(tensors["codes"].values).reshape(entry["shape"]), tensors["scales"]
    values = np.ldexp(E2M1[codes], along_columns(scales.values.astype(np.int32) - 127, 32))
    nan = along_columns((scales.type == "F8_E8M0") & (scales.values == 255), 32)
    return np.where(nan, np.float32(np.nan), values)


def decode_mxfp8(entry, tensors):
    return E4M3[tensors["codes"].values] * along_columns(as_fp32(tensors["scales"]), 32)


def decode_fp8(entry, tensors):
    """Each part has squares of its own; the last ones of a row, a column and a part may be cut off."""
    _, rows, columns = entry["shape"]
    block, part_rows = entry["block"], rows // entry["parts"]
    row = np.arange(rows)
    square_row = row // part_rows * -(-part_rows // block) + row % part_rows // block
    scales = as_fp32(tensors["scales"])[:, square_row][..., np.arange(columns) // block]
    return E4M3[tensors["codes"].values] * scales


def decode_nvfp4(entry, tensors):
    inner = as_fp32(tensors["scales"])
    outer = np.repeat(tensors["global_scales"].values, entry["shape"][1] // entry["parts"], 1)[..., None]
    scales = outer * inner if entry["global_scale"] == "factor" else inner / outer
    return E2M1[nibbles(tensors["codes"].values)] * along_columns(scales, 16)


def decode_int4(entry, tensors):
    codes = nibbles(tensors["codes"].values).astype(np.float32) - 8
    return codes * along_columns(as_fp32(tensors["scales"]), entry["block"])


DECODERS = {"nf4": decode_table, "fp4": decode_table, "int8": decode_int8, "mxfp4": decode_mxfp4, "fp8": decode_fp8,
            "mxfp8": decode_mxfp8, "nvfp4": decode_nvfp4, "int4": decode_int4}


# ---- Comparison ------------------------------------------------------------------------------------------------------


def difference(expected, values, name):
    """A sentence about the values whose bits differ, or None. NaNs are equal whatever their payload."""
    if expected.shape != values.shape:
        return f"{name} is {list(expected.shape)}, decoded {list(values.shape)}"
    bits = expected.view(np.uint32 if name == "f32" else np.uint16)
    own = bits_of(values, name)
    wrong = np.argwhere((bits != own) & ~(is_nan(bits, name) & is_nan(own, name)))
    if not len(wrong):
        return None
    at = tuple(wrong[0])
    return (f"{len(wrong)} of {bits.size} values of {name} differ, first {[int(i) for i in at]}: "
            f"{bits[at]:#x} in the file, {own[at]:#x} decoded")


def complaints(entry, stored):
    """What is wrong with a file, and how many values were compared."""
    roles = entry["tensors"]
    if sorted(roles.values()) != sorted(stored):
        return [f"has tensors {sorted(stored)}, but roles for {sorted(roles.values())}"], 0
    tensors = {role: stored[name] for role, name in roles.items()}
    names = [role for role in tensors if role in ("f32", "bf16", "f16")]
    if not names:
        return ["has no expected values"], 0
    values = np.ascontiguousarray(DECODERS[entry["encoding"]](entry, tensors)).reshape(entry["shape"])
    found = [difference(tensors[name].values, values, name) for name in names]
    if "decoded_scales" in tensors:
        found.append(difference(tensors["decoded_scales"].values, scales_of_blocks(entry, tensors), "f32"))
    return [complaint for complaint in found if complaint], values.size * len(names)


def main():
    if len(sys.argv) > 1:
        contents = {path.name: path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()}
    else:
        contents = archive.read()
    entries = json.loads(contents["index.json"])["files"]
    found, compared = [], 0
    listed, present = {entry["file"] for entry in entries}, {name for name in contents if name.endswith(".safetensors")}
    found += [f"{file}: not both in index.json and beside it" for file in sorted(listed ^ present)]
    missing = ENCODINGS - {entry["encoding"] for entry in entries}
    found += [f"no file for {encoding}" for encoding in sorted(missing)]
    with np.errstate(all="ignore"):
        for entry in entries:
            if entry["file"] in present:
                sentences, count = complaints(entry, read_safetensors(contents[entry["file"]]))
                found += [f"{entry['file']}: {sentence}" for sentence in sentences]
                compared += count
    for complaint in found:
        print(complaint)
    print(f"{len(entries)} files, {compared} values compared, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
