"""Models with quantised experts against the same models with the decoded experts, in loss and in every adapter's gradient."""

import copy
import hashlib

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers as st  # noqa: E402
from models import TARGETS, compare, loss_of, randomise, tokens, train, with_adapter  # noqa: E402
from quantised_models import KINDS, experts_of, fp8_experts, own, parametrised, plain  # noqa: E402
from reference import assert_close, error  # noqa: E402
from smlora.transformers import _experts, _warnings  # noqa: E402
from smlora.transformers._weights import PARAMETERS, quantized_weight  # noqa: E402


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def decoded(model, dtype=torch.float32):
    """The same with plain experts; test_transformers.py has those against eager."""
    return st.dequantize_experts(copy.deepcopy(model), dtype)


def adapted(model):
    torch.manual_seed(6)
    return with_adapter(model).train()


def digest(model):
    """Of the bytes of all experts."""
    hashed = hashlib.sha256()
    for module in experts_of(model):
        for name in PARAMETERS:
            for tensor in quantized_weight(module, name).tensors().values():
                hashed.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def test_loss_and_gradients_are_those_of_the_decoded_model(kind, device):
    model = kind().to(device)
    twin = decoded(model)
    assert all(quantized_weight(module, name) is None for module in experts_of(twin) for name in PARAMETERS)
    before = digest(model)
    compare(adapted(twin), adapted(model), tokens(device))
    assert digest(model) == before


def test_targets_match_by_suffix_and_adapters_have_the_decoded_sizes(kind):
    model = kind()
    shapes = [
        {name: parameter.shape for name, parameter in adapted(which).named_parameters() if parameter.requires_grad}
        for which in (decoded(model), model)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 8


def test_training_saving_loading_and_disabling(kind, tmp_path):
    model, ids = kind(), tokens()
    base = loss_of(copy.deepcopy(model), ids).detach()
    model = adapted(model)
    history = train(model, ids, steps=6)
    assert history[-1] < history[0] - 0.02
    with model.disable_adapter():
        assert torch.equal(loss_of(model, ids), base)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(kind(), tmp_path)
    assert torch.equal(loss_of(loaded, ids), loss_of(model, ids))


def test_merging_needs_decoded_experts(kind):
    model, ids = adapted(kind()), tokens()
    expected = loss_of(model, ids)
    before = digest(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(NotImplementedError, match=r"proj is quantised \(\w+\): merging would .*dequantize_experts"):
            merge()
    assert digest(model) == before
    st.dequantize_experts(model, torch.float32)
    merged = model.merge_and_unload()
    assert_close(loss_of(merged, ids), expected, torch.float32, factor=2)
    assert error(loss_of(decoded(kind()), ids), expected) > 1e-4


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_a_refused_merge_leaves_the_adapters_of_other_layers(merge):
    model = peft.get_peft_model(own("nf4"), peft.LoraConfig(
        r=4, target_modules=["q_proj"], target_parameters=TARGETS, init_lora_weights=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NotImplementedError, match="merging would "):
        getattr(model, merge)()
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("make", [parametrised, fp8_experts, lambda: own("nf4")])
def test_two_active_adapters_are_refused(make):
    model = adapted(make())
    model.add_adapter("second", peft.LoraConfig(r=4, lora_alpha=8, target_modules=[], target_parameters=TARGETS))
    randomise(model)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(NotImplementedError, match="proj is quantised .*: 2 adapters are active at once"):
        loss_of(model, tokens())


@pytest.mark.parametrize("make", [parametrised, fp8_experts])
def test_another_implementation_is_refused_with_adapters(make):
    model = adapted(make())
    model.set_experts_implementation("eager")
    with pytest.raises(NotImplementedError, match='proj is quantised .* is not computed by experts_implementation="smlora"'):
        loss_of(model, tokens())


def test_both_adapters_of_a_parametrised_module_count_and_none_is_left_behind():
    """PEFT by itself leaves its parametrisation of one step to the next, and loses the adapter of down_proj."""
    model, ids = adapted(parametrised()), tokens()
    loss_of(model, ids).backward()
    second = loss_of(model, ids)
    second.backward()
    for module in experts_of(model):
        assert [len(module.parametrizations[name]) for name in PARAMETERS] == [1, 1]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 0, name
    for parameter_name in PARAMETERS:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for module in other.modules():
                if getattr(module, "parameter_name", None) == parameter_name:
                    module.lora_B["default"].weight.mul_(100)
        assert abs(loss_of(other, ids) - second) > 1e-3


def test_what_peft_left_behind_before_is_removed():
    from peft.tuners.lora import layer

    model, ids = parametrised(), tokens()
    expected = loss_of(model, ids)
    experts = experts_of(model)[0]
    proxy = layer._LoraParameterProxy(torch.ones(1))
    torch.nn.utils.parametrize.register_parametrization(experts, "down_proj", proxy, unsafe=True)
    assert torch.equal(loss_of(model, ids), expected)
    assert len(experts.parametrizations["down_proj"]) == 1


def test_fp8_gradients_are_those_in_double_on_the_decoded_weights():
    model = fp8_experts()
    twin = decoded(model)
    model, exact, ids = adapted(model), adapted(twin).double(), tokens()
    exact.set_experts_implementation("eager")
    for which in (model, exact):
        loss_of(which, ids).backward()
    expected = dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert_close(parameter.grad, expected[name].grad, torch.float32, name, factor=4)
            assert expected[name].grad.abs().max() > 0
    for module in experts_of(model):
        assert not any(parameter.requires_grad for name, parameter in module.named_parameters() if "proj" in name)


@pytest.mark.parametrize("make", [parametrised, lambda: own("mxfp4")])
def test_gradient_checkpointing(make):
    model = make()
    twin = decoded(model)
    for which in (model, twin):
        which.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        which.enable_input_require_grads()
    compare(adapted(twin), adapted(model), tokens())


@pytest.mark.parametrize("make", [parametrised, fp8_experts, lambda: own("nf4")])
def test_experts_compile_whole_after_a_first_call(make):
    torch._dynamo.reset()
    experts = experts_of(make())[0]
    arguments = torch.randn(9, 64), torch.randint(0, 6, (9, 2)), torch.rand(9, 2)
    expected = experts(*arguments)
    compiled = torch.compile(experts, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*arguments), expected, torch.float32)


@pytest.mark.parametrize("make", [parametrised, lambda: own("nf4")])
def test_an_activation_of_the_models_own_stays_its_own(make):
    """As that of DeepSeek-V4, which clamps."""
    model = make()
    twin = decoded(model)
    for module in experts_of(model) + experts_of(twin):
        module.act_fn = torch.nn.Mish()
    twin.set_experts_implementation("eager")
    compare(adapted(twin), adapted(model), tokens())


def test_experts_of_deepseek_v4_keep_their_clamp():
    path = "transformers.models.deepseek_v4.modeling_deepseek_v4"
    modeling = pytest.importorskip(path, reason="needs a Transformers that has DeepSeek-V4")
    config = transformers.DeepseekV4Config(
        hidden_size=64, moe_intermediate_size=96, n_routed_experts=6, num_experts_per_tok=2, swiglu_limit=0.5
    )
    config._experts_implementation = "smlora"
    experts = modeling.DeepseekV4Experts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model = st.quantize_experts(torch.nn.ModuleList([experts]), "mxfp4")
    exact = st.dequantize_experts(copy.deepcopy(model), torch.float32).double()[0]
    exact.config = copy.copy(config)
    exact.config._experts_implementation = "eager"
    x, index, gates = torch.randn(9, 64), torch.randint(0, 6, (9, 2)), torch.rand(9, 2)
    assert_close(experts(x, index, gates), exact(x.double(), index, gates.double()), torch.float32, factor=2)


@pytest.mark.parametrize("make, layout", [(parametrised, "enk"), (KINDS["gpt-oss blocks"], "enk"),
                                          (KINDS["nf4 parametrised [E, in, out]"], "ekn")])
def test_a_first_step_compiles_the_kernels_of_the_decoded_weights(make, layout, monkeypatch):
    asked = []
    monkeypatch.setattr(_experts, "prewarm", lambda problems, tokens, activation: asked.extend(problems))
    monkeypatch.setattr(_experts, "_prewarmed", set())
    module = experts_of(make())[0]
    _experts.compile_the_step(module, torch.zeros(38, 64), torch.zeros(38, 2), 2, {})
    assert [(problem.E, problem.K, problem.N, problem.weight_layout) for problem in asked] == [
        (6, 64, 192, layout), (6, 96, 64, layout)
    ]


def test_linear_layers_keep_their_parameters_as_views_of_the_stack():
    model = KINDS["list of Linear4bit"]()
    experts = experts_of(model)[0]
    before = [linear.weight.clone() for linear in experts.down_projs]
    weight = quantized_weight(experts, "down_proj")
    for linear, codes in zip(experts.down_projs, before):
        assert linear.weight.untyped_storage().data_ptr() == weight.codes.untyped_storage().data_ptr()
        assert torch.equal(linear.weight, codes)


class Adapted(torch.nn.Module):
    """As PEFT wraps a linear layer."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer

    @property
    def weight(self):
        return self.base_layer.weight


def test_adapters_of_single_experts_are_refused():
    model, ids = KINDS["list of Linear4bit"](), tokens()
    loss_of(model, ids)
    linears = experts_of(model)[0].down_projs
    linears[1] = Adapted(linears[1])
    with pytest.raises(ValueError, match=r'down_projs: expected linear .*, got Adapted; .*target_parameters=\["down_proj"\]'):
        loss_of(model, ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_codes_that_were_cast_to_numbers_are_refused(dtype):
    model, ids = fp8_experts(), tokens()
    plain_model = decoded(model).to(dtype)
    loss_of(model, ids)
    with pytest.raises(ValueError, match=f"gate_up_proj: expected codes of torch.float8_e4m3fn .*, got {dtype}, to which"):
        loss_of(model.to(dtype), ids)
    assert loss_of(plain_model, ids).isfinite()


def test_weights_follow_the_model_to_another_device():
    model, ids = parametrised(), tokens()
    expected = loss_of(model, ids)
    for module in experts_of(model):
        for name in PARAMETERS:
            original = module.parametrizations[name].original
            original.data = original.data.clone()
            assert quantized_weight(module, name).codes.data_ptr() == original.data_ptr()
    assert torch.equal(loss_of(model, ids), expected)


def test_an_unknown_quantisation_is_named():
    model = parametrised()
    for module in experts_of(model):
        module.parametrizations["down_proj"][0].quant_state.quant_type = "af4"
    with pytest.raises(ValueError, match="quant_state: expected a QuantState of nf4 or fp4"):
        adapted(model)


def test_an_unknown_encoding_is_named():
    with pytest.raises(ValueError, match="encoding: expected one of nf4, .*, got 'nf3'"):
        st.quantize_experts(plain(), "nf3")
    with pytest.raises(ValueError, match="quantize_experts: expected one of nf4, .*, got 'nf3'"):
        st.register(quantize_experts="nf3")


WRONG_OPTIONS = [
    (dict(encoding="nf4", block=48), "^block: expected a power of two from 32 to 4096 for nf4, got 48"),
    (dict(encoding="nf4", block="64"), "^block: expected a whole number, got '64'"),
    (dict(encoding="mxfp4", block=64), "^block: expected None for mxfp4, whose block is fixed, got 64"),
    (dict(encoding="int4", block=33), "^block: expected an even number for int4, got 33"),
    (dict(encoding="int8", double=True), "^double: expected False for int8, whose scales are not quantised, got True"),
    (dict(encoding="nf4", double="no"), "^double: expected True or False, got 'no'"),
]


@pytest.mark.parametrize("options, message", WRONG_OPTIONS)
def test_options_that_the_encoding_has_not_are_named_before_a_model_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        st.quantize_experts(torch.nn.Module(), **options)
    with pytest.raises(ValueError, match=message):
        st.register(quantize_experts=options["encoding"], **{name: options[name] for name in options if name != "encoding"})


@pytest.mark.parametrize("options", [dict(block=64), dict(double=True)])
def test_options_without_an_encoding_are_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: expected it together with quantize_experts, got .* alone"):
        st.register(**options)


def test_experts_without_a_gate_stay_plain():
    model = plain()
    for module in experts_of(model):
        module.has_gate = False
        module.up_proj = torch.nn.Parameter(module._parameters.pop("gate_up_proj")[:, ::2].detach().clone())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match="smlora: Qwen3MoeExperts has no gate projection; its experts are not quantised"):
        st.quantize_experts(model, "nf4")
    assert model.state_dict().keys() == before.keys()
    assert torch.isfinite(loss_of(model, tokens()))


def test_experts_with_a_norm_are_computed_as_their_decoded_weights():
    quantised = own("nf4")
    for module in experts_of(quantised):
        module.has_post_expert_norm, module.post_expert_norm = True, torch.nn.RMSNorm(module.hidden_dim)
    decoded = st.dequantize_experts(copy.deepcopy(quantised), torch.float32)
    ids = tokens()
    assert_close(loss_of(quantised, ids), loss_of(decoded, ids), torch.float32)


def test_held_experts_that_smlora_cannot_compute_are_refused():
    model = own("nf4")
    for module in experts_of(model):
        del module.down_proj
        module.down_proj = torch.nn.Parameter(torch.zeros(2, 3, 4, dtype=torch.int32), requires_grad=False)
    with pytest.raises(NotImplementedError, match="down_proj is of torch.int32, .*; its experts are quantised"):
        loss_of(model, tokens())


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_another_implementation_says_what_computes_with_quantised_experts(implementation):
    model = st.quantize_experts(plain(), "nf4")
    model.set_experts_implementation(implementation)
    with pytest.raises(NotImplementedError, match=r'set_experts_implementation\("smlora"\)'):
        loss_of(model, tokens())
    model.set_experts_implementation("smlora")
    assert torch.isfinite(loss_of(model, tokens()))
