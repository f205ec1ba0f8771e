"""Builds the wheel as pip does and tries it: check_wheel.py <python folder> <scratch folder>. $PYTHON_WITH_TORCH, if it
exists, imports it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import zipfile

source, scratch = (pathlib.Path(argument).absolute() for argument in sys.argv[1:])
shutil.rmtree(scratch, ignore_errors=True)
environment = scratch / "venv"
venv.create(environment, with_pip=True)
python = environment / "bin" / "python"
pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
if subprocess.run([*pip, "install", "scikit-build-core>=0.10"]).returncode != 0:
    print("skipped: needs scikit-build-core from PyPI")
    sys.exit(77)
# Without optimisation: what counts here is what is in it.
quickly = "--config-settings=cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"
subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", quickly, "-w", scratch, source], check=True)

(wheel,) = scratch.glob("*.whl")
assert re.fullmatch(r"smlora-[0-9.]+-cp310-abi3-linux_\w+\.whl", wheel.name), wheel.name
names = set(zipfile.ZipFile(wheel).namelist())
for name in ("__init__.py", "_native.abi3.so", "cache/README.md"):
    assert f"smlora/{name}" in names, f"{name} is not in {sorted(names)}"
assert any(re.fullmatch(r"smlora/lib/libsmlora\.so\.[0-9.]+", name) for name in names), sorted(names)
cache = pathlib.Path(__file__).resolve().parents[2] / "cache"
records = {f"smlora/cache/{file.relative_to(cache)}" for file in cache.rglob("*.jsonl")}
assert records == {name for name in names if name.endswith((".json", ".jsonl")) and "/cache/" in name}, sorted(names)
stray = {name for name in names if not name.startswith(("smlora/", "smlora-"))}
assert not stray, stray

with_torch = os.environ.get("PYTHON_WITH_TORCH", "")
if not os.path.exists(with_torch):
    print("not imported: needs torch (tools/python_environment)")
    sys.exit(0)
site = scratch / "site"
subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
script = f"""
import smlora, torch
print(smlora.__version__, smlora.__file__, smlora.route(torch.tensor([[1, 0]]), 2))
layers = smlora.cache_stats("cpu")["layers"]
assert any(layer["exists"] and not layer["writable"] for layer in layers) == {bool(records)}, layers
"""
subprocess.run([with_torch, "-c", script], check=True, env=dict(os.environ, PYTHONPATH=str(site)), cwd=scratch)
