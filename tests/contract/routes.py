"""Which operations are built: what the endpoint classes declare, read without wiring a server."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import NamedTuple
from unittest.mock import MagicMock

import homeserver

PACKAGES = ("client", "admin", "discovery", "web", "media")


class Declared(NamedTuple):
    """One declared route: method, full path, name of its ``Auth``, and the module that declares it."""

    method: str
    path: str
    auth: str
    module: str


def _modules() -> list[ModuleType]:
    names = [
        module.name
        for module in pkgutil.walk_packages(homeserver.__path__, "homeserver.")
        if module.name.split(".")[1] in PACKAGES
    ]
    return [importlib.import_module(name) for name in sorted(names)]


def declared_routes() -> list[Declared]:
    """Every route that an endpoint class offers. The classes are not wired: what they lack is a mock."""
    found = []
    for module in _modules():
        for _, class_ in inspect.getmembers(module, inspect.isclass):
            if class_.__module__ == module.__name__ and "routes" in vars(class_):
                unwired = type(class_.__name__, (class_,), {"__getattr__": lambda self, name: MagicMock(name=name)})
                for route in object.__new__(unwired).routes():
                    found.append(Declared(route.method, route.path, route.auth.name, module.__name__))
    return found
