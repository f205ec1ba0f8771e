"""Methods of other packages, replaced once."""


def patch(owner, name, around):
    """Puts around(method) in the place of the method, unless that was done before."""
    method = getattr(owner, name)
    if not getattr(method, "_smlora", False):
        patched = around(method)
        patched._smlora = True
        setattr(owner, name, patched)
