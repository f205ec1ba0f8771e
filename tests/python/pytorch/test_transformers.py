"""experts_implementation="smlora" against eager, in loss and in every gradient, on small random models."""

import concurrent.futures
import copy
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora  # noqa: E402
import smlora.transformers as st  # noqa: E402
from models import CONFIGS, TARGETS, both, build, compare, loss_of, randomise, tokens, train, with_adapter  # noqa: E402
from reference import assert_close, error  # noqa: E402
from smlora.transformers import _experts, _peft, _warnings  # noqa: E402


@pytest.fixture
def materialised(monkeypatch):
    """How many times PEFT has added an adapter to its weight."""
    from peft.tuners.lora.layer import ParamWrapper

    calls = []
    for method in {"get_delta_weight", "get_delta_factors"} & vars(ParamWrapper).keys():
        original = getattr(ParamWrapper, method)

        def record(self, *arguments, original=original, **named):
            calls.append(self.parameter_name)
            return original(self, *arguments, **named)

        monkeypatch.setattr(ParamWrapper, method, record)
    return calls


@pytest.fixture
def called(monkeypatch):
    """How many times the experts were one operation."""
    calls = []
    original = _experts.moe_lora_mlp

    def record(*arguments, **named):
        calls.append(named.get("gate_up_lora") is not None)
        return original(*arguments, **named)

    monkeypatch.setattr(_experts, "moe_lora_mlp", record)
    return calls


@pytest.mark.parametrize("name", CONFIGS)
def test_full_fine_tuning(name, device, called):
    eager, fused = both(name, device=device)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="smlora")
        compare(eager, fused, tokens(device))
    assert len(called) == (1 if name == "deepseek_v3" else 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_peft_adapters_are_fused(name, device, called, materialised):
    eager, fused = both(name, with_adapter, device=device)
    ids = tokens(device)
    materialised.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="smlora")
        loss_of(fused, ids)
    assert called and all(called)
    assert materialised == []
    compare(eager, fused, ids)


@pytest.fixture
def choices(monkeypatch):
    """A list of the routers' choices. While it is empty it records those of the model that runs; `choices.replay()` makes
    the next model's routers choose the same. In bf16 a token between two experts may go to either, by rounding far from
    the experts; such a token moves gradients by several hundredths, in eager as in smlora."""
    original = torch.topk

    class Choices(list):
        replayed = None

        def replay(self):
            self.replayed = iter(self)

    recorded = Choices()

    def topk(scores, k, dim=-1, **named):
        if recorded.replayed is None:
            values, indices = original(scores, k, dim, **named)
            recorded.append(indices)
        else:
            indices = next(recorded.replayed)
            values = scores.gather(dim, indices)
        return torch.return_types.topk((values, indices))

    monkeypatch.setattr(torch, "topk", topk)
    return recorded


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_bf16_with_adapters_in_fp32_under_autocast(device, name, choices):
    """Both implementations against the same weights and choices in double: smlora may be no further from it than eager is,
    but for the scatter between two orders of rounding. In 90 draws its errors were at most 0.0144, and 1.06 of eager's."""
    eager, fused = both(name, with_adapter, device=device, dtype=torch.bfloat16)
    adapters = [parameter for parameter in fused.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in adapters} == {torch.float32}
    ids = tokens(device)
    gradients = []
    for model in (copy.deepcopy(eager).double(), eager, fused):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=model in (eager, fused)):
            loss = loss_of(model, ids)
        loss.backward()
        choices.replay()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad})
    exact, of_eager, of_smlora = gradients
    for name, expected in exact.items():
        assert of_smlora[name].dtype == torch.float32
        ours, theirs = error(of_smlora[name], expected), error(of_eager[name], expected)
        assert ours < 1.25 * theirs and ours < 0.03, f"{name}: smlora {ours:.4f}, eager {theirs:.4f}"


def test_a_first_step_compiles_the_kernels_of_its_problems_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr(_experts, "prewarm", lambda problems, tokens, activation: asked.append((problems, tokens, activation)))
    monkeypatch.setattr(_experts, "_prewarmed", set())
    _, fused = both("qwen3_moe", with_adapter, dtype=torch.bfloat16)
    for layer in fused.base_model.model.model.layers:
        experts = layer.mlp.experts
        wrappers = {experts.parameter_name: experts, experts.base_layer.parameter_name: experts.base_layer}
        adapters = {name: _peft.adapter_of(wrapper, "default") for name, wrapper in wrappers.items()}
        module = experts.get_base_layer()
        _experts.compile_the_step(module, torch.zeros(38, 32, dtype=torch.bfloat16),
                             torch.zeros(38, 2, dtype=torch.bfloat16), 2, adapters)
    types = torch.bfloat16, torch.float32, torch.bfloat16, torch.int32, "enk"
    assert asked == [([
        smlora.Problem(6, 32, 48, 4, 2, *types, "token", "grouped"),
        smlora.Problem(6, 24, 32, 4, 2, *types, "grouped", "token", gates=True),
    ], [38], smlora.Activation("swiglu"))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_compiles_nothing_beside_what_was_prewarmed():
    _, fused = both("qwen3_moe", with_adapter, device="cuda", dtype=torch.bfloat16)
    ids = torch.randint(3, 97, (4, 50), device="cuda")
    smlora.prewarm(fused, [200])
    before = smlora.cache_stats()["compiles"]
    loss_of(fused, ids).backward()
    assert smlora.cache_stats()["compiles"] == before


def test_gradient_checkpointing():
    def prepare(model):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        return with_adapter(model)

    compare(*both("qwen3_moe", prepare), tokens())


def test_threads_share_a_model_with_adapters():
    model, ids = with_adapter(build("qwen3_moe", "smlora")), torch.arange(40).view(4, 10)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: model(input_ids=ids).logits, range(24)))
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize("targets", [TARGETS[:1], TARGETS[1:]])
def test_one_adapted_parameter(targets, materialised, called):
    eager, fused = both("gpt_oss", lambda model: with_adapter(model, target_parameters=targets))
    compare(eager, fused, tokens())
    assert called[0] == (targets == TARGETS[:1])


def test_rank_stabilised_scaling():
    compare(*both("mixtral", lambda model: with_adapter(model, use_rslora=True)), tokens())


def test_several_adapters_of_which_one_is_active():
    def prepare(model):
        model = with_adapter(model, "first")
        model.add_adapter("second", peft.LoraConfig(r=3, lora_alpha=5, target_modules=[], target_parameters=TARGETS))
        randomise(model)
        return model

    eager, fused = both("qwen3_moe", prepare)
    ids = tokens()
    losses = []
    for adapter in ("first", "second"):
        for model in (eager, fused):
            model.set_adapter(adapter)
        losses.append(loss_of(fused, ids))
        assert_close(losses[-1], loss_of(eager, ids), torch.float32)
    assert abs(losses[0] - losses[1]) > 1e-4
    compare(eager, fused, ids)


def test_two_active_adapters_fall_back_with_a_warning():
    def prepare(model):
        model = with_adapter(model, "first")
        model.add_adapter("second", peft.LoraConfig(r=4, lora_alpha=8, target_modules=[], target_parameters=TARGETS))
        randomise(model)
        model.base_model.set_adapter(["first", "second"])
        return model

    eager, fused = both("qwen3_moe", prepare)
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match="smlora: 2 adapters are active at once"):
        compare(eager, fused, tokens())


def test_disabling_merging_and_unmerging():
    _, fused = both("qwen3_moe", with_adapter)
    fused.eval()
    ids = tokens()
    base = build("qwen3_moe", "smlora").eval()
    adapted = loss_of(fused, ids)
    with fused.disable_adapter():
        assert_close(loss_of(fused, ids), loss_of(base, ids), torch.float32)
    fused.merge_adapter()
    assert_close(loss_of(fused, ids), adapted, torch.float32)
    fused.unmerge_adapter()
    assert_close(loss_of(fused, ids), adapted, torch.float32)
    assert_close(loss_of(fused.merge_and_unload(), ids), adapted, torch.float32)


def test_saving_and_loading(tmp_path):
    _, fused = both("qwen3_moe", with_adapter)
    fused.eval()
    ids = tokens()
    fused.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build("qwen3_moe", "smlora"), tmp_path).eval()
    assert torch.equal(loss_of(loaded, ids), loss_of(fused, ids))


def test_training_agrees_over_steps():
    eager, fused = both("qwen3_moe", with_adapter)
    ids = tokens()
    histories = [train(model, ids, steps=10) for model in (eager, fused)]
    assert histories[0][-1] < histories[0][0] - 0.05
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)


def test_set_experts_implementation_switches():
    model = build("qwen3_moe", "eager").eval()
    ids = tokens()
    expected = loss_of(model, ids)
    model.set_experts_implementation("smlora")
    assert_close(loss_of(model, ids), expected, torch.float32)


@pytest.mark.parametrize("prepare", [lambda model: model, with_adapter])
def test_an_unknown_activation_runs_between_two_operations(prepare, materialised):
    def with_mish(model):
        for layer in model.model.layers:
            layer.mlp.experts.act_fn = torch.nn.Mish()
        return prepare(model)

    eager, fused = both("qwen3_moe", with_mish)
    ids = tokens()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="smlora")
        loss_of(fused, ids)
    assert materialised == []
    compare(eager, fused, ids)


@pytest.fixture
def unserved(monkeypatch):
    """Experts with a reason against them."""
    monkeypatch.setattr(_experts, "reason_against", lambda module: f"{type(module).__name__} is not served here")
    _warnings.warned.clear()


def test_what_is_not_served_runs_as_transformers_would_run_it_with_one_warning(unserved):
    model, reference = build("gpt_oss", "smlora").eval(), build("gpt_oss", "grouped_mm").eval()
    ids = tokens()
    with pytest.warns(UserWarning, match="smlora: GptOssExperts is not served here; its experts run as with .*_mm") as seen:
        loss = loss_of(model, ids)
    (warning,) = [w for w in seen if "smlora" in str(w.message)]
    assert warning.filename.endswith("models.py"), "the line that called the model"
    assert torch.equal(loss, loss_of(reference, ids))


def test_entries_of_other_ranks_are_left_out_where_nothing_is_served(unserved):
    experts, served = (build("qwen3_moe", "smlora").model.layers[0].mlp.experts for _ in range(2))
    served._smlora_activation = smlora.Activation("swiglu")
    x, index, gates = torch.randn(9, 32), torch.randint(0, 6, (9, 2)), torch.rand(9, 2)
    index[::2, 1], index[1::3, 0] = 6, -1
    with pytest.warns(UserWarning, match="is not served here"):
        got = experts(x, index, gates)
    assert_close(got, served(x, index, gates), torch.float32)


def test_status_says_what_computes_each_layer():
    model = with_adapter(build("gpt_oss", "smlora"))
    status = st.status(model)
    paths = [f"base_model.model.model.layers.{i}.mlp.experts" for i in range(2)]
    weights = "float32 [6, 32, 48], float32 [6, 24, 32]"
    inside = "down_proj, gate_up_proj: rank 4 inside"
    said = "GptOssExperts", "fused", "swiglu_clamped", weights, inside
    assert [layer[:6] for layer in status] == [(path, *said) for path in paths]
    title, line = str(status).splitlines()
    assert title.split() == ["layers", "number", "experts", "runs", "why", "weights", "adapter", "kernels", "records"]
    assert re.split("  +", line) == [paths[0].replace("0", "*"), "2", *status[0][1:]]


def test_status_says_why_not():
    def why(model):
        (one,) = {layer[2:4] for layer in st.status(model)}
        return one

    assert why(build("qwen3_moe", "eager")) == ("eager", 'not loaded with experts_implementation="smlora"')
    mish = build("qwen3_moe", "smlora")
    for layer in mish.model.layers:
        layer.mlp.experts.act_fn = torch.nn.Mish()
    assert why(mish) == ("projections", "an activation of its own")
    weights = build("qwen3_moe", "smlora")
    for layer in weights.model.layers:
        layer.mlp.experts.down_proj = torch.nn.Parameter(torch.zeros(6, 32, 24, dtype=torch.int32), requires_grad=False)
    assert why(weights) == ("grouped_mm", "Qwen3MoeExperts.down_proj is of torch.int32, without the scales that smlora knows")
    assert str(st.status(torch.nn.Linear(2, 2))) == "no experts"
    with pytest.raises(ValueError, match="model: expected a torch.nn.Module, got 'gpt2' of type str"):
        st.status("gpt2")


def test_status_says_which_kernels_and_records_are_there():
    """In a process of its own, with an empty cache."""
    script = """
import smlora, smlora.transformers as st, torch
from models import build, with_adapter
model = with_adapter(build("qwen3_moe", "smlora", dtype=torch.bfloat16))
for tokens in ([64], [64, 4096], ()):
    print(*{(layer.kernels, layer.records) for layer in st.status(model, tokens)})
print(*{(layer.kernels, layer.records) for layer in st.status(build("qwen3_moe", "eager"))})
"""
    path = ":".join(filter(None, [str(pathlib.Path(__file__).parent), *sys.path]))
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": path, "SMLORA_CACHE_DIR": f"{cache}/kernels", "SMLORA_SHIPPED_CACHE": "0"}
        command = [sys.executable, "-c", script]
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    counts = [re.fullmatch(r"\('0 of (\d+)', '0 of (\d+)'\)", line) for line in output.splitlines()[:3]]
    assert all(counts), output
    kernels, records = zip(*[map(int, count.groups()) for count in counts])
    assert 0 < kernels[0] <= kernels[1] and 0 < records[0] and records[1] == 2 * records[0]
    assert output.splitlines()[3] == "('-', '-')"
    with pytest.raises(ValueError, match="tokens: expected a list of numbers, got 64 of type int"):
        st.status(build("qwen3_moe", "smlora"), 64)


def test_status_says_where_adapters_are():
    def adapter(model):
        (one,) = {layer.adapter for layer in st.status(model)}
        return one

    assert adapter(build("qwen3_moe", "smlora")) == "none"
    model = with_adapter(build("qwen3_moe", "smlora"), target_parameters=TARGETS[:1])
    assert adapter(model) == "gate_up_proj: rank 4 inside"
    with model.disable_adapter():
        assert adapter(model) == "gate_up_proj: not active"
    large = with_adapter(build("qwen3_moe", "smlora"), r=300)
    assert adapter(large).startswith("down_proj: added to the weights: an adapter of rank 300 on down_proj; the largest")
    model.merge_adapter()
    assert adapter(model) == "gate_up_proj: merged"


def test_experts_compile_whole_after_a_first_call():
    torch._dynamo.reset()
    experts = build("gpt_oss", "smlora").model.layers[0].mlp.experts
    arguments = torch.randn(9, 32), torch.randint(0, 6, (9, 2)), torch.rand(9, 2)
    expected = experts(*arguments)
    compiled = torch.compile(experts, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*arguments), expected, torch.float32)


def test_a_compiled_model_gives_the_same():
    torch._dynamo.reset()
    eager, fused = build("qwen3_moe", "eager"), build("qwen3_moe", "smlora")
    ids = tokens()
    compiled = torch.compile(fused, backend="aot_eager")
    assert_close(loss_of(compiled, ids), loss_of(eager, ids), torch.float32)


def test_entries_of_other_ranks_are_left_out():
    experts = build("qwen3_moe", "smlora").model.layers[0].mlp.experts
    x, index = torch.randn(9, 32), torch.randint(0, 6, (9, 2))
    weights = torch.rand(9, 2)
    whole = experts(x, index, weights)
    index[::2, 1] = 6
    partial = experts(x, index, weights)
    weights[::2, 1] = 0
    index[::2, 1] = 0
    assert_close(partial, experts(x, index, weights), torch.float32)
    assert error(partial, whole) > 0.01
