"""Frozen weights of 4 or 8 bits a value, as checkpoints store them, in the place of plain ones."""

from smlora.quantized._bitsandbytes import from_bnb
from smlora.quantized._compressed_tensors import from_compressed_tensors
from smlora.quantized._fp8 import from_fp8
from smlora.quantized._module import QuantizedParameters
from smlora.quantized._mxfp4 import from_mxfp4, from_mxfp8
from smlora.quantized._nvfp4 import from_nvfp4
from smlora.quantized._quantize import quantize
from smlora.quantized._torchao import from_torchao
from smlora.quantized._weight import QuantizedWeight, Weight, WeightFormat, dequantize

__all__ = [
    "QuantizedParameters",
    "QuantizedWeight",
    "Weight",
    "WeightFormat",
    "dequantize",
    "from_bnb",
    "from_compressed_tensors",
    "from_fp8",
    "from_mxfp4",
    "from_mxfp8",
    "from_nvfp4",
    "from_torchao",
    "quantize",
]
