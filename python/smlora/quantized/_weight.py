"""Quantised weights of experts as checkpoints store them: the tensors, and how to read them."""

import dataclasses
from typing import Any, NamedTuple, Optional

import torch
from torch.utils import _pytree

from smlora import _native
from smlora._arguments import ARGUMENT_ERRORS, described, in_callers_words
from smlora.quantized._arrange import arrange_op
from smlora.quantized._dequantize import dequantize_op

ENCODINGS = {name: value for value, name in enumerate(_native.encodings)}
_QUANTISED = tuple(name for name in ENCODINGS if name != "plain")
GLOBAL_SCALES = ("factor", "divisor")
DECODED_TYPES = (torch.bfloat16, torch.float16, torch.float32)

TENSORS = ("codes", "scales", "table", "outer_scales", "outer_table", "outer_offset", "global_scales")
"""The fields of a QuantizedWeight that are tensors, in the order in which operators take those that are given."""

_OUTER = ("outer_scales", "outer_table", "outer_offset")


def _fields_of(encoding, double):
    """The tensors that a weight of this encoding has."""
    if encoding in ("nf4", "fp4"):
        return ("codes", "scales", "table", *(_OUTER if double else ()))
    return ("codes", "scales", "global_scales") if encoding == "nvfp4" else ("codes", "scales")


ARRANGED = tuple(name for name in _QUANTISED if name != "int8")  # encodings whose scales may be


class WeightFormat(NamedTuple):
    """All of a QuantizedWeight but its tensors; what the fields mean is said there."""

    encoding: str
    E: int
    rows: int
    columns: int
    block: int = 0
    parts: int = 1
    outer_block: int = 0
    global_scale: str = "factor"
    transposed: bool = False

    def numbers(self) -> list[Any]:
        """As operators take it."""
        return [
            ENCODINGS[self.encoding], self.E, self.rows, self.columns, self.block, self.parts, self.outer_block,
            GLOBAL_SCALES.index(self.global_scale), int(self.transposed)
        ]


def shape_of_view(numbers):
    """[E, rows, columns] of WeightFormat.numbers(), or [E, columns, rows]."""
    _, E, rows, columns, *_, transposed = numbers
    return (E, columns, rows) if transposed else (E, rows, columns)


def exchanged(numbers):
    """The numbers of the transposed view."""
    return [*numbers[:-1], 1 - numbers[-1]]


def _same_dimension(dim):
    return dim + 3 if dim < 0 else dim


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QuantizedWeight:
    """A frozen weight [E, rows, columns] of `encoding`, in the place of a plain tensor for smlora's functions. Its tensors are
    those of the checkpoint: nothing is copied, decoded or written. `shape` is that of the view: a weight that is stored
    [E, N, K] is passed as `weight.transpose(1, 2)`, as a plain tensor is. What it is decoded to is the type of the rows that it
    is multiplied with, or the argument of `dequantize`.

    encoding: "nf4", "fp4", "int8" (bitsandbytes), "mxfp4", "fp8", "mxfp8", "nvfp4" or "int4"; smlora/encoding.hpp has
    the formula of each, smlora/weight.hpp shape and type of each tensor.
    E, rows, columns: as stored, columns contiguous.
    block: values of a row that share a scale; of fp8 a square.
    parts: equal ranges of rows that were quantised apart, such as gate and up.
    codes, scales: of all encodings. table: of nf4 and fp4. global_scales [E, parts]: of nvfp4, whose scales are multiplied
    with it if global_scale is "factor", and divided by it if it is "divisor".
    outer_scales, outer_table, outer_offset, outer_block: of nf4 and fp4 whose scales are quantised (double quantisation).
    transposed: whether the view is [E, columns, rows].

    smlora.from_bnb and its like make one of what a library stores, smlora.quantize of a plain tensor. It is a node of
    torch's pytrees."""

    encoding: str
    E: int
    rows: int
    columns: int
    codes: torch.Tensor
    scales: torch.Tensor
    block: int = 0
    parts: int = 1
    table: Optional[torch.Tensor] = None
    outer_scales: Optional[torch.Tensor] = None
    outer_table: Optional[torch.Tensor] = None
    outer_offset: Optional[torch.Tensor] = None
    outer_block: int = 0
    global_scales: Optional[torch.Tensor] = None
    global_scale: str = "factor"
    transposed: bool = False

    # ---- as a tensor is asked ----

    @property
    def shape(self) -> torch.Size:
        """[E, rows, columns], or [E, columns, rows] of a transposed view."""
        last = (self.columns, self.rows) if self.transposed else (self.rows, self.columns)
        return torch.Size((self.E, *last))

    def size(self, dim: Optional[int] = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def transpose(self, dim0: int, dim1: int) -> "QuantizedWeight":
        """The view with the last two dimensions exchanged. No memory is touched."""
        if {_same_dimension(dim0), _same_dimension(dim1)} != {1, 2}:
            raise ValueError(f"dim0, dim1: expected 1 and 2, which a quantised weight can exchange, got {dim0} and {dim1}")
        return QuantizedWeight.from_tensors(self.format._replace(transposed=not self.transposed), self.tensors())

    def to(self, device: torch.device | str | int) -> "QuantizedWeight":
        """The same on another device. Tensors that are there already are not copied."""
        return self._of({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def detach(self) -> "QuantizedWeight":
        """The same memory, without what asks for a gradient."""
        return self._of({name: tensor.detach() for name, tensor in self.tensors().items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all of its tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def __repr__(self):
        more = "".join(
            f", {name}={getattr(self, name)}"
            for name, unsaid in (("block", 0), ("parts", 1), ("outer_block", 0))
            if getattr(self, name) != unsaid
        )
        if self.encoding == "nvfp4":
            more += f", global_scale={self.global_scale!r}"
        if self.is_arranged:
            more += ", arranged"
        return f"QuantizedWeight({self.encoding}, shape={list(self.shape)}{more}, transposed={self.transposed}, " \
            f"device={str(self.device)!r})"

    # ---- tensors and format ----

    @property
    def format(self) -> WeightFormat:
        """All but the tensors, as WeightFormat."""
        return WeightFormat(self.encoding, self.E, self.rows, self.columns, self.block, self.parts, self.outer_block,
                            self.global_scale, self.transposed)

    def tensors(self) -> dict[str, torch.Tensor]:
        """{field: tensor} of those that are given."""
        given = {}
        for name in TENSORS:
            tensor = getattr(self, name)
            if tensor is not None:
                given[name] = tensor
        return given

    @staticmethod
    def from_tensors(format: WeightFormat, tensors: dict[str, torch.Tensor]) -> "QuantizedWeight":
        """Of a WeightFormat and of what `tensors` gives."""
        if torch.compiler.is_compiling():
            return QuantizedWeight(**format._asdict(), **tensors)
        # __init__ of a frozen class sets field by field, which takes three times as long.
        made = object.__new__(QuantizedWeight)
        made.__dict__.update(zip(WeightFormat._fields, format), **tensors)
        return made

    def _of(self, tensors):
        return QuantizedWeight.from_tensors(self.format, tensors)

    def _has_the_fields(self, given):
        """Whether _check_fields has nothing to say, at the cost of a comparison."""
        expected = _fields_of(self.encoding, "outer_scales" in given)
        return tuple(given) == expected and self.encoding in _QUANTISED and self.global_scale in GLOBAL_SCALES

    def _check_fields(self):
        """What the library is told by numbers, and which tensors are given."""
        if self.encoding not in _QUANTISED:
            raise ValueError(f"weight.encoding: expected one of {', '.join(_QUANTISED)}, got {self.encoding!r}")
        if self.global_scale not in GLOBAL_SCALES:
            raise ValueError(f'weight.global_scale: expected "factor" or "divisor", got {self.global_scale!r}')
        expected = _fields_of(self.encoding, any(getattr(self, name) is not None for name in _OUTER))
        for name in TENSORS:
            tensor = getattr(self, name)
            if name not in expected and tensor is None:
                continue
            if not isinstance(tensor, torch.Tensor) or name not in expected:
                what = "a tensor" if name in expected else "None"
                raise ValueError(f"weight.{name}: expected {what} with encoding {self.encoding}, got {described(tensor)}")

    def check(self) -> "QuantizedWeight":
        """Returns itself. Raises ValueError that names the field, its value and what was expected. Operations check it, too."""
        self._check_fields()
        for name, tensor in self.tensors().items():
            if tensor.device != self.codes.device:
                raise ValueError(
                    f"weight.{name}: expected a tensor on {self.codes.device}, where weight.codes is, got one on "
                    f"{tensor.device}"
                )
        if self.codes.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling():
            try:
                _native.check_weight(*self.operands())
            except ARGUMENT_ERRORS as error:
                raise in_callers_words(error) from None
        return self

    def operands(self) -> tuple[torch.Tensor, list[torch.Tensor], list[Any]]:
        """(codes, the other tensors, the format's numbers), as operators take them."""
        given = self.tensors()
        if not self._has_the_fields(given):
            self._check_fields()
        codes = given.pop("codes")
        return codes, list(given.values()), self.format.numbers()

    # ---- experts ----

    def __getitem__(self, experts):
        """weight[e0:e1]: the weight of these experts, which shares the memory. Raises ValueError where a block of nf4 or fp4
        holds values of two experts at one of the borders."""
        if not isinstance(experts, slice) or experts.step not in (None, 1):
            raise ValueError(f"experts: expected a slice e0:e1, got {experts!r}")
        chosen = range(self.E)[experts]
        first, last = chosen.start, chosen.stop
        if first >= last:
            raise ValueError(f"experts: expected one or more of {self.E}, got {experts.start}:{experts.stop}")
        if self.table is not None:
            return self._flat_slice(first, last)
        cut = {name: tensor[first:last] for name, tensor in self.tensors().items()}
        return QuantizedWeight.from_tensors(self.format._replace(E=last - first), cut)

    def _flat_slice(self, first, last):
        """Blocks of bitsandbytes count along all values."""
        values = self.rows * self.columns
        cut = dict(self.tensors())

        def keep(name, block, what):
            """Of a tensor whose elements stand for `block` values each."""
            for expert in (first, last):
                if expert * values % block and expert != self.E:
                    raise ValueError(
                        f"experts: expected a range that begins and ends with {what}, got {first}:{last}: {what} of "
                        f"{block} values goes on from expert {expert - 1} to expert {expert}, of {values} values each"
                    )
            cut[name] = cut[name].reshape(-1)[first * values // block : -(-last * values // block)]

        if self.is_arranged:
            cut["scales"] = self.scales[first:last]
        else:
            keep("scales", self.block, "a block")
        if self.outer_scales is not None:
            keep("outer_scales", self.block * self.outer_block, "a block of blocks")
        keep("codes", 2, "a byte")
        return QuantizedWeight.from_tensors(self.format._replace(E=last - first), cut)

    # ---- the order of scales ----

    @property
    def is_arranged(self) -> bool:
        """Whether the scales are in the order of `arranged`."""
        return self.encoding in ARRANGED and self.scales.dim() == 4

    def arranged(self) -> "QuantizedWeight":
        """The same weight with its scales in the order in which products take them: products of bfloat16 rows then
        decode the codes while they multiply them, instead of unpacking them to memory first. The codes are shared; the scales
        are new, [E, rows' / 64, columns' / 64, elements for 64 x 64 values], rows' and columns' rounded up to 256. Call it once,
        when a weight is loaded: on a GPU it waits for it. Scales of nf4 and fp4 that are quantised themselves are decoded.
        Raises ValueError where such products have no room for the weight: int8; nf4, fp4 and fp8 of a block that is no multiple
        of 64, or, of nf4 and fp4, does not divide the columns; int4 of scales that are not bfloat16, or of a block that is
        neither 32 nor a multiple of 64; parts of fp8 and nvfp4 that are no multiple of 64 rows; scales that are too large or
        NaN; codes of e4m3 that are NaN; global scales of nvfp4 that are no sum of two bf16, as 2 of 100,000 are not."""
        if self.encoding not in ARRANGED:
            raise ValueError(f"weight.encoding: expected one of {', '.join(ARRANGED)}, got {self.encoding!r}")
        if self.is_arranged:
            return self
        try:
            scales = arrange_op.call(*self.operands())
        except ARGUMENT_ERRORS as error:
            raise in_callers_words(error) from None
        kept = {name: tensor for name, tensor in self.tensors().items() if name not in _OUTER}
        return QuantizedWeight.from_tensors(self.format._replace(outer_block=0), {**kept, "scales": scales})

    # ---- values ----

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """smlora.dequantize of it."""
        if dtype not in DECODED_TYPES:
            raise ValueError(f"dtype: expected bfloat16, float16 or float32, got {dtype}")
        try:
            values = dequantize_op.call(*self.operands(), dtype)
        except ARGUMENT_ERRORS as error:
            raise in_callers_words(error) from None
        return values.transpose(1, 2) if self.transposed else values


def dequantize(weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
    """The values of a `QuantizedWeight`, of its shape, in bfloat16, float16 or float32: the bits that the library which made
    it decodes them to. Of a transposed weight it is the transpose of what is stored. Has no derivative. Raises ValueError that
    names the argument."""
    if not isinstance(weight, QuantizedWeight):
        raise ValueError(f"weight: expected a QuantizedWeight, got {described(weight)}")
    return weight.dequantize(dtype)


Weight = torch.Tensor | QuantizedWeight
"""Of a projection."""


def _flatten(weight):
    given = weight.tensors()
    return list(given.values()), (weight.format, tuple(given))


def _unflatten(values, context):
    format, names = context
    return QuantizedWeight.from_tensors(format, dict(zip(names, values)))


def _flatten_with_keys(weight):
    values, context = _flatten(weight)
    return [(_pytree.GetAttrKey(name), value) for name, value in zip(context[1], values)], context


_pytree.register_pytree_node(
    QuantizedWeight, _flatten, _unflatten, flatten_with_keys_fn=_flatten_with_keys,
    serialized_type_name="smlora.QuantizedWeight"
)

# In files it has its public name. It is numbers, names and tensors, which operations check, whatever a file says.
QuantizedWeight.__module__ = "smlora.quantized"
torch.serialization.add_safe_globals([QuantizedWeight])
