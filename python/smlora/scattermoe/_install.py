"""Puts the drop-in in the place of axolotl's library."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys

_PACKAGE = "axolotl.integrations.kernels.libs.scattermoe_lora"
_MODULES = (
    "kernels", "kernels.ops", "kernels.lora_ops", "kernels.grouped_gram", "kernels.single", "parallel_experts",
    "parallel_linear_lora", "lora_ops", "multi_lora", "mx_weights", "selective_dequant", "selective_dequant_kernel",
)
_PARENTS = [_PACKAGE.rsplit(".", depth)[0] for depth in range(1, _PACKAGE.count(".") + 1)]


def _fill(package):
    """Last: an import of a module sets the name in its package, and parallel_linear_lora is to be the function."""
    drop_in = importlib.import_module("smlora.scattermoe")
    package.__dict__.update({name: getattr(drop_in, name) for name in drop_in.__all__ if name != "install"})


class _Loader(importlib.abc.Loader):
    """Makes axolotl's package out of smlora's names, and its modules out of smlora's modules."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        if name == _PACKAGE:
            for submodule in _MODULES:
                importlib.import_module(f"{_PACKAGE}.{submodule}")
            _fill(module)
        elif name.startswith(_PACKAGE):
            # What is in sys.modules afterwards is what is imported.
            sys.modules[name] = importlib.import_module("smlora.scattermoe" + name[len(_PACKAGE) :])


class _Finder(importlib.abc.MetaPathFinder):
    """Asked before all others for axolotl's package and the modules that are smlora's; and, once all others have failed,
    for the packages that they lie in."""

    def __init__(self, names, with_package):
        self._names = names
        self._with_package = with_package

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self._names:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=not fullname.startswith(_PACKAGE + "."))
        if fullname == _PACKAGE and self._with_package:
            original = importlib.machinery.PathFinder.find_spec(fullname, path)
            # Its other modules are found where they are, and import from those that are replaced.
            spec.submodule_search_locations = list(original.submodule_search_locations) if original else []
        return spec


def _replace_what_is_loaded():
    for name in (_PACKAGE, *(f"{_PACKAGE}.{module}" for module in _MODULES)):
        if sys.modules.pop(name, None) is not None:
            module = importlib.import_module(name)
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, module)
    if _PACKAGE in sys.modules:
        _fill(sys.modules[_PACKAGE])


def install():
    """Makes imports of axolotl.integrations.kernels.libs.scattermoe_lora, and of its modules that smlora.scattermoe has,
    give those of smlora. With axolotl installed, its other modules stay its own and use these. Call it first: a module
    that has taken a function of the original by name keeps it. Safe to call again."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    ours = {_PACKAGE, *(f"{_PACKAGE}.{module}" for module in _MODULES)}
    sys.meta_path.insert(0, _Finder(ours, with_package=True))
    sys.meta_path.append(_Finder(set(_PARENTS), with_package=False))
    _replace_what_is_loaded()
