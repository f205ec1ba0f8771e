"""Importing this module is `smlora.transformers.register()`: for programs that import a module which their settings name, such
as verl's external_lib. docs/recipes.md has them."""

from smlora.transformers import register

register()
