"""hw1: a small CNN from scratch, or a linear head on a frozen, pretrained ViT? See README.md.

`import hw1_utils as hw1` costs nothing: what is used is imported when it is first used.
"""

from importlib import import_module

from .questions import STUDIES

__version__ = "0.1.0"

_PUBLIC = {
    "config": ("make_config",),
    "experiment": ("load", "load_test", "cnn", "probe", "train", "evaluate_on_test"),
    "models": ("CNN", "FrozenEncoder", "load_encoders"),
    "augment": ("preview",),
    "optim": ("RECIPES",),
    "features": ("extract",),
    "training": ("fit",),
    "measure.costs": ("measure_costs",),
    "report.tables": ("compare", "outcomes"),
    "report.conclusion": ("conclusion",),
    "studies": ("asked",),
    **{f"studies.{name}": (name,) for name, files in STUDIES.items() if files},
    "studies.duplicates": ("duplicates", "exact_copies"),
    "studies.sanity": ("sanity_check",),
    "deploy.saved": ("save_models", "load_model", "predict"),
    "errors": ("Hw1Error",),
}
_PLACE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_PLACE)


def __getattr__(name: str) -> object:
    if name not in _PLACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACE[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
