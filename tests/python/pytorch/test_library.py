"""What lies around the operations: NVRTC, the package and its records, prewarming and tuning."""

import importlib
import inspect
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import traceback

import pytest
import smlora
import torch
from smlora import _library, _native


def test_nvrtc_is_found_where_torchs_wheels_put_it(tmp_path):
    """In a process of its own: with a folder like that of the wheel, that one is opened, and an environment variable goes
    before it."""
    installed = [
        pathlib.Path(folder) / name
        for folder in (*_library.nvrtc_folders(), "/usr/local/cuda/lib64")
        for name in ("libnvrtc.so.13", "libnvrtc.so.12")
    ]
    library = next((file for file in installed if file.exists()), None)
    if library is None:
        pytest.skip("needs NVRTC")
    for folder in (tmp_path / "wheels" / "nvidia" / "cuda_nvrtc" / "lib", tmp_path / "toolkit" / "lib64"):
        folder.mkdir(parents=True)
        for file in library.parent.glob("libnvrtc*.so.*"):
            if ".alt." not in file.name:
                # Copies: the loader takes two links to one file, of which torch has opened one, for the same library.
                shutil.copyfile(file, folder / file.name)

    def found(**environment):
        script = "import json, smlora; print(json.dumps(smlora.system_info()['nvrtc']))"
        kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH")}
        path = ":".join([str(tmp_path / "wheels"), *[entry for entry in sys.path if entry]])
        output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True,
                                env=dict(kept, PYTHONPATH=path, **environment)).stdout
        return json.loads(output)["library"]

    # torch's own wheel, if there is one, comes before ours on the path of packages called nvidia.
    assert "/nvidia/" in found()
    assert found(CUDA_HOME=str(tmp_path / "toolkit")) == str(tmp_path / "toolkit" / "lib64" / library.name)


def test_system_info_and_cache_stats():
    info = smlora.system_info()
    assert info["smlora_version"] == smlora.__version__
    stats = smlora.cache_stats("cpu")
    assert {"memory_hits", "disk_hits", "compiles"} <= stats.keys()


def test_without_compiling_a_missing_kernel_is_an_error_with_a_code(tmp_path):
    script = """
import smlora
try:
    smlora.prewarm([smlora.Problem(2, 16, 16, 4, 1)], [8])
except smlora.Error as error:
    print(error.code, error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                         env=dict(os.environ, SMLORA_CACHE_DIR=str(tmp_path), SMLORA_CACHE_LAYERS="", SMLORA_JIT="off"))
    assert run.stdout.startswith("jit_off kernel ")
    assert "smlora-tune prewarm" in run.stdout


@pytest.mark.parametrize("limit", ["max_experts", "max_top_k", "max_rank"])
def test_the_packages_limits_are_the_librarys(limit):
    """The operators take the limit itself and refuse one more, without the package's own checks."""
    from smlora._projection import linear
    from smlora._routing import _OP as route
    from smlora._rows import combine_rows

    choices = torch.zeros(1, 1, dtype=torch.int64)
    routing = smlora.route(choices, 1)
    x, W = torch.zeros(1, 8), torch.zeros(1, 8, 8)
    call = {
        "max_experts": lambda E: route.call(choices, E, torch.int32),
        "max_top_k": lambda k: combine_rows.call(torch.zeros(k, 8), None, k),
        "max_rank": lambda R: linear.call(x, W, torch.zeros(1, R, 8), torch.zeros(1, 8, R), None, None, *routing[1:], 0, 1, 1.0),
    }[limit]
    most = getattr(_native, limit)
    call(most)
    with pytest.raises(ValueError, match=f"expected [01] to {most}, got {most + 1}"):
        call(most + 1)


def test_prewarming_compiles_once(tmp_path):
    """In a process of its own, with an empty cache."""
    if not smlora.system_info()["nvrtc"]["found"]:
        pytest.skip("needs NVRTC")
    script = """
import json, smlora, torch
problems = [smlora.Problem(4, 64, 32, 0, 2, torch.float32)]
print(json.dumps([smlora.prewarm(problems, [64]) for _ in range(2)]))
"""
    path = ":".join(entry for entry in sys.path if entry)
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True,
                            env=dict(os.environ, PYTHONPATH=path, SMLORA_CACHE_DIR=str(tmp_path / "cache"))).stdout
    first, second = json.loads(output)
    assert first["compiled"] == first["kernels"] > 0
    assert second["found"] == second["kernels"] == first["kernels"]
    assert (tmp_path / "cache" / "v1" / "uses").read_text() == f"{first['kernels']} {first['kernels']} 0\n"


@pytest.mark.parametrize("wrong", [dict(weight_layout="nke"), dict(x_rows="rows"), dict(dtype=torch.int8), dict(E=0),
                                   dict(E=1025), dict(gates=True), dict(adapter_dtype=torch.float16)])
def test_a_wrong_problem_is_named(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        smlora.Problem(**{**dict(E=4, K=64, N=32, R=8, top_k=2), **wrong})
    with pytest.raises(ValueError, match=name):
        smlora.prewarm([smlora.Problem(4, 64, 32, 8, 2)._replace(**wrong)], [64])


@pytest.mark.parametrize("weights, message", [
    ("nf5", "^weights: expected one of plain, nf4, .* or a QuantizedWeight, got 'nf5'"),
    ("nf4:double", "^weights: expected one of plain, nf4, .* or a QuantizedWeight, got 'nf4:double'"),
    (4, "weights: expected one of plain, nf4, .*, got 4"),
    ("mxfp4", "problem.*weights.block: expected a divisor of columns = 40, got 32"),
])
def test_wrong_weights_are_named(weights, message):
    right = smlora.Problem(4, 40, 64, 8, 2, weight_layout="enk")
    with pytest.raises(ValueError, match=message):
        smlora.Problem(*right._replace(weights=weights))
    # Before the first is compiled or measured, and on any machine.
    for function in (smlora.prewarm, smlora.tune):
        with pytest.raises(ValueError, match=message):
            function([right, right._replace(weights=weights)], [64])


def test_the_parameters_of_a_problem_are_its_fields():
    assert tuple(inspect.signature(smlora.Problem).parameters) == smlora.Problem._fields
    problem = smlora.Problem(4, 40, 64, 8, 2, weights="nf4")
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert repr(problem).startswith("Problem(E=4, K=40, ")


def test_prewarming_compiles_what_decodes_quantised_weights(tmp_path):
    """In a process of its own, with an empty cache: one kernel for each way in which weights are stored."""
    if not smlora.system_info()["nvrtc"]["found"]:
        pytest.skip("needs NVRTC")
    script = """
import json, smlora, torch
problem = smlora.Problem(4, 64, 32, 0, 2, torch.float32, weight_layout="enk")
of = lambda **options: smlora.quantize(torch.randn(4, 32, 64), "nf4", **options)
print(json.dumps([smlora.prewarm([problem._replace(weights=weights)], [64])
                  for weights in ("plain", "nf4", of(), of(double=True), of(block=128), "mxfp4")]))
"""
    path = ":".join(entry for entry in sys.path if entry)
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True,
                            env=dict(os.environ, PYTHONPATH=path, SMLORA_CACHE_DIR=str(tmp_path / "cache"))).stdout
    compiled = [report["compiled"] for report in json.loads(output)]
    assert compiled[0] > 0
    assert compiled[1:] == [1, 0, 1, 1, 1]


def test_the_problems_of_an_mlp_say_how_its_weights_are_stored():
    """Layers of the same shapes have equal problems, which keep no tensor alive."""
    from smlora._prewarm import form_of, mlp_problems

    def problems():
        gate_up = smlora.quantize(torch.randn(4, 96, 64), "nf4", double=True).transpose(1, 2)
        return mlp_problems(form_of(gate_up), form_of(torch.empty(4, 48, 64)), 2, torch.bfloat16, ranks=(8, 8),
                            adapter_dtypes=(None, None), gate_dtype=None)

    gate_up, down = problems()
    assert (gate_up.E, gate_up.K, gate_up.N, gate_up.weight_layout) == (4, 64, 96, "enk")
    assert gate_up.numbers()[-1] == [1, 6, 64, 1, 256, 0, 0]  # nf4, uint8
    assert (down.weight_layout, down.weights) == ("ekn", "plain")
    assert {*problems()} == {gate_up, down}


@pytest.mark.parametrize(
    "loaded", ["", "import nvidia", "import sys, types; sys.modules['nvidia'] = types.ModuleType('nvidia')"]
)
def test_a_module_named_nvidia_beside_the_script_hides_no_nvrtc(tmp_path, loaded):
    (tmp_path / "nvidia.py").write_text("")
    (tmp_path / "script.py").write_text(f"{loaded}\nimport smlora._library as library\nprint(*library.nvrtc_folders())\n")
    run = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False,
                         env=dict(os.environ, PYTHONPATH=":".join(entry for entry in sys.path if entry)))
    assert run.returncode == 0, run.stderr
    assert str(pathlib.Path(torch.__file__).resolve().parents[1] / "nvidia" / "cu13" / "lib") in run.stdout.split()


def test_children_that_are_forked_while_a_thread_computes_compute_too():
    script = """
import os, threading, torch, smlora
torch.set_num_threads(4)
x, weight, idx = torch.randn(256, 64), torch.randn(16, 64, 32), torch.randint(0, 16, (256, 4))
def call():
    return smlora.moe_lora_linear(x, weight, smlora.route(idx, 16))
expected = call()
stop = False
def busy():
    while not stop:
        call()
thread = threading.Thread(target=busy)
thread.start()
statuses = set()
for _ in range(100):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(5)
        os._exit(0 if torch.equal(call(), expected) else 1)
    statuses.add(os.waitpid(child, 0)[1])  # 14: it hung
stop = True
thread.join()
print(statuses)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                         env=dict(os.environ, PYTHONPATH=":".join(entry for entry in sys.path if entry)))
    assert run.stdout.strip() == "{0}", (run.stdout, run.stderr)


def test_the_shipped_records_are_a_layer():
    layers = {layer["root"]: layer for layer in smlora.cache_stats("cpu")["layers"]}
    shipped = pathlib.Path(smlora.__file__).parent / "cache"
    assert (shipped / "README.md").exists()
    # A folder without records is left out.
    records = list(shipped.glob("v1/tuning/*.jsonl"))
    assert (str(shipped) in layers and layers[str(shipped)]["exists"]) == bool(records)


@pytest.fixture
def installed(tmp_path):
    """A copy of the package, as an installation that may be changed."""
    package = tmp_path / "site" / "smlora"
    shutil.copytree(pathlib.Path(smlora.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def layers_of(package, **environment):
    """(the roots of the cache layers of the package in this folder, what it says on stderr), after a call on the CPU."""
    script = """
import json, torch, smlora
smlora.route(torch.tensor([[0, 1]]), 3)
print(json.dumps([layer["root"] for layer in smlora.cache_stats("cpu")["layers"]]))
"""
    path = ":".join([str(package.parent), *[entry for entry in sys.path if entry]])
    cache = package.parent / "user"
    kept = {name: value for name, value in os.environ.items() if name not in ("SMLORA_CACHE_LAYERS", "SMLORA_LOG")}
    # A libsmlora that is found before the package's own has an owner and a mode of its own.
    libraries = [folder for folder in kept.pop("LD_LIBRARY_PATH", "").split(":")
                 if folder and not [*pathlib.Path(folder).glob("libsmlora.so*")]]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                         env=dict(kept, PYTHONPATH=path, SMLORA_CACHE_DIR=str(cache),
                                  LD_LIBRARY_PATH=":".join(libraries), **environment))
    assert run.returncode == 0, run.stderr
    roots = json.loads(run.stdout)
    assert roots[0] == str(cache)
    return roots[1:], run.stderr


def test_the_shipped_records_come_after_the_layers_of_the_user_and_can_be_switched_off(installed, tmp_path):
    shipped, named = str(installed / "cache"), str(tmp_path / "named")
    assert layers_of(installed) == ([shipped], "")
    assert layers_of(installed, SMLORA_CACHE_LAYERS=f":{named}:")[0] == [named, shipped]
    assert layers_of(installed, SMLORA_SHIPPED_CACHE="0") == ([], "")
    assert layers_of(installed, SMLORA_CACHE_LAYERS=named, SMLORA_SHIPPED_CACHE="0")[0] == [named]


def test_a_package_that_its_group_may_write_to_has_its_records(installed):
    """pip with umask 002, which is the default of users on Ubuntu and Fedora."""
    for path in (installed, *installed.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)
    assert layers_of(installed) == ([str(installed / "cache")], "")


def test_records_that_more_users_may_write_to_than_the_package_are_left_out(installed):
    shipped = installed / "cache"
    shipped.chmod(0o775)
    roots, said = layers_of(installed)
    assert roots == []
    assert f"chmod -R go-w {shipped}" in said and "SMLORA_SHIPPED_CACHE=0" in said and said.count("\n") == 1, said
    assert layers_of(installed, SMLORA_SHIPPED_CACHE="0") == ([], "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the package to another user")
def test_a_package_of_another_user_has_its_records(installed):
    """A conda environment of a colleague, or of a cluster's software account."""
    for path in (installed, *installed.rglob("*")):
        os.chown(path, 4242, 4242)
    assert layers_of(installed) == ([str(installed / "cache")], "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the records to another user")
def test_records_of_another_user_than_the_package_are_left_out(installed):
    os.chown(installed / "cache", 4242, 4242)
    roots, said = layers_of(installed)
    assert roots == []
    assert "belongs to user 4242" in said and said.count("\n") == 1, said


@pytest.mark.parametrize(
    "module, page", [("smlora", "python"), ("smlora.transformers", "python"), ("smlora.scattermoe", "migration_axolotl")]
)
def test_every_public_name_is_documented(module, page):
    text = (pathlib.Path(__file__).parents[3] / "docs" / f"{page}.md").read_text()
    module = importlib.import_module(module)
    for name in module.__all__:
        assert f"`{name}" in text or f"{module.__name__}.{name}" in text, name
        assert getattr(module, name).__doc__, name


def test_wrong_arguments_of_prewarm_are_named():
    problem = smlora.Problem(4, 16, 16, 4, 2)
    for problems, tokens, message in (
        (problem, [1], r"problems: expected a list of smlora.Problem, got Problem\(E=4, .* of type Problem"),
        ([4], [1], "problems: expected a list of smlora.Problem, got 4 of type int in it"),
        ([problem], 16, "tokens: expected a list of numbers, got 16 of type int"),
        ([problem._replace(E="4")], [1], "E: expected a whole number, got '4' of type str"),
        (torch.nn.Linear(2, 2), [1], "model: expected experts that smlora computes, got none: there is no module of experts"),
    ):
        with pytest.raises(ValueError, match=message):
            smlora.prewarm(problems, tokens)
    for options, message in (
        (dict(activation="tanh"), "activation: expected one of swiglu, .*, got 'tanh'"),
        (dict(activation="swiglu"), 'activation: expected it with a problem whose x_rows are "grouped"'),
        (dict(archs="sm_90a"), 'archs: expected a list of names such as "sm_90a", got \'sm_90a\' of type str'),
        (dict(archs=["sm_1"]), "sm_1"),
    ):
        with pytest.raises(ValueError, match=message):
            smlora.prewarm([problem], [1], **options)
    with pytest.raises(ValueError, match="activation: expected none with a model, which has its own, got 'swiglu'"):
        smlora.prewarm(torch.nn.Linear(2, 2), [1], activation="swiglu")
    with pytest.raises(ValueError, match="device: expected .*, got 'mps'"):
        smlora.cache_stats("mps")


def test_wrong_arguments_of_tune_are_named():
    problem = smlora.Problem(4, 16, 16, 4, 2)
    for problems, tokens, options, message in (
        (problem, [1], {}, r"problems: expected a list of smlora.Problem, got Problem\(E=4, .* of type Problem"),
        ([4], [1], {}, "problems: expected a list of smlora.Problem, got 4 of type int in it"),
        ([problem], 16, {}, "tokens: expected a list of numbers, got 16 of type int"),
        ([problem], [0], {}, "tokens: expected 1 or more, got 0"),
        ([problem], [1], dict(seconds=0), "seconds: expected a number above 0, got 0"),
        ([problem], [1], dict(rounds=0), "rounds: expected 1 or more, got 0"),
        ([problem], [1], dict(skew="left"), "skew: expected one of uniform, zipf, one, got 'left'"),
        ([problem], [1], dict(memory_bytes=-1), "memory_bytes: expected 1 or more, got -1"),
        ([problem], [1], dict(candidates="8"), "candidates: expected a whole number, got '8' of type str"),
        ([problem._replace(E=0)], [1], {}, "E"),
        ([problem._replace(gate_dtype=torch.int4)], [1], {}, "gate_dtype: expected one of .*, got torch.int4"),
    ):
        with pytest.raises(ValueError, match=message):
            smlora.tune(problems, tokens, **options)


@pytest.mark.skipif(smlora.system_info()["devices"] != [], reason="there is a GPU")
def test_tuning_needs_a_gpu():
    with pytest.raises(smlora.Error):
        smlora.tune([smlora.Problem(4, 64, 64, 8, 2)], [64], seconds=1)


def test_tracebacks_have_the_public_name_of_the_error():
    text = "".join(traceback.format_exception_only(smlora.Error, smlora.Error("no device")))
    assert text == "smlora.Error: no device\n"
    assert type(pickle.loads(pickle.dumps(smlora.Error("no device")))) is smlora.Error


@pytest.mark.skipif(smlora.system_info()["devices"] == [], reason="needs a GPU")
def test_tuning_finds_what_it_has_recorded(tmp_path):
    """In a process of its own, with an empty cache."""
    script = """
import json, smlora
problems, told = [smlora.Problem(8, 256, 256, 16, 2)], []
reports = [smlora.tune(problems, [256], seconds=120, progress=told.append) for _ in range(2)]
try:
    smlora.tune(problems, [256], again=True, progress=lambda p: 1 / 0)
except ZeroDivisionError:
    reports.append(smlora.tune(problems, [256], again=True, progress=lambda p: False))
print(json.dumps([reports, len(told)]))
"""
    path = ":".join(entry for entry in sys.path if entry)
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True,
                            env=dict(os.environ, PYTHONPATH=path, SMLORA_CACHE_DIR=str(tmp_path / "cache"))).stdout
    (first, second, stopped), told = json.loads(output)
    assert told > 0
    assert {work["work"] for work in first["works"]} >= {"forward", "dx", "gradients"}
    assert all(work["choice"] and work["median_seconds"] > 0 for work in first["works"])
    assert all(work["outcome"] == "out of time" for work in first["works"] if not work["complete"])
    known = [later for work, later in zip(first["works"], second["works"], strict=True) if work["complete"]]
    assert known and all(work["outcome"] == "recorded" for work in known)
    assert stopped["stopped"] and not first["stopped"]
