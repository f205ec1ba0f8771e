"""QuantizedParameters: a quantised weight as a part of a module."""

import copy
import itertools
import weakref

import pytest
import smlora
import torch
from quantised import OPTIONS, digest, random_weight
from smlora.quantized import QuantizedParameters


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_parameters_are_bytes_that_give_the_weight(device, name, storage):
    for E in (4, 1):
        weight = random_weight(name, E, 256, 64, device)
        module = torch.nn.ModuleDict({"weight": QuantizedParameters(weight, storage=storage)})
        assert all(tensor.dtype == storage and tensor.shape[0] == E for tensor in module.parameters())
        assert not any(tensor.requires_grad for tensor in module.parameters())
        for made in (module, copy.deepcopy(module), module.to(torch.float16), module.double(), module.type(torch.float16)):
            assert digest(made["weight"]()) == digest(weight) and made["weight"]().format == weight.format
    assert repr(module["weight"]) == f"QuantizedParameters({weight!r})"


def test_parameters_share_the_memory_of_the_weight():
    weight = random_weight("mxfp4", 4, 8, 64)
    assert QuantizedParameters(weight).codes.data_ptr() == weight.codes.data_ptr()
    assert QuantizedParameters(weight)().scales.data_ptr() == weight.scales.data_ptr()


def _assigned(module, other):
    module.load_state_dict(other.state_dict(), assign=True)
    return module()


def _put_into_data(module, other):
    for name, parameter in module.named_parameters():
        parameter.data = other.get_parameter(name).data
    for name, buffer in module.named_buffers():
        buffer.data = other.get_buffer(name)
    return module()


def _registered(module, other):
    for name, parameter in other.named_parameters():
        setattr(module, name, torch.nn.Parameter(parameter.detach(), requires_grad=False))
    for name, buffer in other.named_buffers():
        setattr(module, name, buffer)
    return module()


def _as_attributes(module, other):
    """As FSDP1 does it."""
    for name, parameter in other.named_parameters():
        del module._parameters[name]
        setattr(module, name, parameter.detach())
    return _put_into_data(module, other)


def _functionally(module, other):
    return torch.func.functional_call(module, other.state_dict())


REPLACED = {
    "load_state_dict": lambda module, other: (module.load_state_dict(other.state_dict()), module())[1],
    "load_state_dict, assign": _assigned, "data": _put_into_data, "register": _registered, "attributes": _as_attributes,
    "functional_call": _functionally,
}


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("how", REPLACED)
def test_tensors_that_take_the_place_of_others_are_seen(how, name, storage):
    weights = [random_weight(name, 4, 256, 64) for _ in range(2)]
    module, other = (QuantizedParameters(weight, storage=storage) for weight in weights)
    assert digest(module()) == digest(weights[0]) != digest(weights[1])
    assert digest(REPLACED[how](module, other)) == digest(weights[1])
    if how == "functional_call":
        assert digest(module()) == digest(weights[0])


def test_a_compiled_function_sees_tensors_that_take_the_place_of_others():
    torch._dynamo.reset()
    weights = [random_weight("nf4_double", 4, 256, 64) for _ in range(2)]
    module, other = map(QuantizedParameters, weights)
    compiled = torch.compile(lambda: module().dequantize(torch.float32) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), weights[0].dequantize(torch.float32) + 1)
    for replace in (_put_into_data, _assigned):
        replace(module, other)
        assert torch.equal(compiled(), weights[1].dequantize(torch.float32) + 1)
        _put_into_data(module, QuantizedParameters(weights[0]))
        assert torch.equal(compiled(), weights[0].dequantize(torch.float32) + 1)


def test_a_call_keeps_nothing_of_what_takes_the_place_of_it():
    """What swaps weights in and out of a device's memory frees the old ones by dropping them."""
    module = QuantizedParameters(random_weight("mxfp8", 4, 8, 64))
    module()
    codes = weakref.ref(module.codes.untyped_storage())
    module.codes.data = torch.empty(0, dtype=torch.uint8)
    assert codes() is None


def test_shards_are_weights_of_some_experts():
    weight = random_weight("nf4_double", 4, 256, 64)
    module, expected = QuantizedParameters(weight), weight[1:3]
    for parameter in module.parameters():
        parameter.data = parameter[1:3]
    assert module().E == 2 and digest(module()) == digest(expected)


def test_storage_that_the_bytes_do_not_fill_is_refused():
    odd = smlora.quantize(torch.randn(2, 3, 33), "int8")
    with pytest.raises(ValueError, match="storage: expected a type whose size divides the 99 bytes of weight.codes"):
        QuantizedParameters(odd, storage=torch.bfloat16)
    assert digest(QuantizedParameters(odd)()) == digest(odd)


def test_arguments_of_other_types_are_refused():
    weight = random_weight("mxfp4", 2, 8, 64)
    with pytest.raises(ValueError, match="storage: expected a type of torch, got 'bfloat16' of type str"):
        QuantizedParameters(weight, storage="bfloat16")
    with pytest.raises(ValueError, match=r"weight: expected a QuantizedWeight, got \[2, 8, 64\]"):
        QuantizedParameters(weight.dequantize(torch.bfloat16))


def test_rows_that_the_storage_does_not_fill():
    """An expert does."""
    odd = smlora.quantize(torch.randn(2, 4, 96), "mxfp8")
    module = QuantizedParameters(odd, storage=torch.bfloat16)
    assert module.scales.shape == (2, 6) and digest(module()) == digest(odd) and module().format == odd.format


def test_fsdp2_shards_it(tmp_path):
    """In one process: it still makes its own parameters and gathers them."""
    distributed = pytest.importorskip("torch.distributed", reason="needs torch")
    fsdp = pytest.importorskip("torch.distributed.fsdp", reason="needs torch")
    weight = random_weight("nf4_double", 4, 256, 64)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        for policy in (fsdp.MixedPrecisionPolicy(), fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16)):
            module = QuantizedParameters(weight, storage=torch.bfloat16)
            fsdp.fully_shard(module, mesh=mesh, mp_policy=policy)
            assert digest(module()) == digest(weight)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_dict_comes_back_from_a_file(name, tmp_path):
    weight, other = random_weight(name, 4, 256, 64), random_weight(name, 4, 256, 64)
    torch.save(QuantizedParameters(weight).state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for assign in (False, True):
        module = QuantizedParameters(other.to("meta") if assign else other)
        assert module.load_state_dict(state, assign=assign).missing_keys == []
        assert digest(module()) == digest(weight)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_dict_of_another_storage_is_the_same_bytes(name, assign):
    weight = random_weight(name, 4, 256, 64)
    types = (torch.uint8, torch.bfloat16, torch.float16)
    for saved, own in itertools.permutations(types, 2):
        module = QuantizedParameters(random_weight(name, 4, 256, 64), storage=own)
        module.load_state_dict(QuantizedParameters(weight, storage=saved).state_dict(), assign=assign)
        assert digest(module()) == digest(weight) and module.codes.dtype == own


def test_a_state_dict_of_another_storage_may_begin_anywhere():
    weight = random_weight("mxfp4", 4, 8, 64)
    state = QuantizedParameters(weight).state_dict()
    state["codes"] = torch.cat([torch.zeros(1, dtype=torch.uint8), state["codes"].view(-1)])[1:].view(weight.codes.shape)
    module = QuantizedParameters(random_weight("mxfp4", 4, 8, 64), storage=torch.bfloat16)
    module.load_state_dict(state)
    assert digest(module()) == digest(weight)


def test_a_state_dict_of_another_format_is_refused():
    factor = random_weight("nvfp4", 2, 4, 64)
    divisor = smlora.from_nvfp4(factor.codes, factor.scales, factor.global_scales, divisor=True, parts=2)
    with pytest.raises(RuntimeError, match="format: expected .*the weight is stored otherwise"):
        QuantizedParameters(factor).load_state_dict(QuantizedParameters(divisor).state_dict())


def test_a_weight_whose_blocks_straddle_experts_is_stored_whole():
    weight = smlora.quantize(torch.randn(3, 5, 33), "nf4")
    module = QuantizedParameters(weight)
    assert module.codes.dim() == 1 and digest(module()) == digest(weight)
