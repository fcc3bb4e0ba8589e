"""Finding the app: from the command line's word, the environment, `pyproject.toml`, or again in a child process.

A target is `package.module:app`, `package.module` (the variable `app`, or the only App in it), or the same with the
path of a file. Nothing here runs code but by importing the module that was named.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dayjob.errors import ConfigError

if TYPE_CHECKING:
    from dayjob.app import App


class AppRef(Struct):
    """How another process finds the app again.

    Attributes:
        target: what `find_app` takes.
        path: entries that belong on `sys.path` there.
        main_file: the script that was started, when the app is defined in it, else None.
    """

    target: str
    path: list[str]
    main_file: str | None = None


def find_app(target: str | None, environ: Mapping[str, str], cwd: Path) -> App:
    """The app that *target*, else `DAYJOB_APP`, else `[tool.dayjob] app` in `pyproject.toml` names.

    Raises:
        ConfigError: nothing names an app, or there is none at the place that was named. An error that the module
            itself raises while it is imported comes through as it is.
    """
    folder = cwd
    if not target:
        target = environ.get("DAYJOB_APP")
    if not target:
        target, folder = _from_pyproject(cwd)
    if not target:
        raise ConfigError(
            'no app was named: pass module:app, set DAYJOB_APP, or write app = "module:app" below [tool.dayjob] '
            "in pyproject.toml"
        )
    return load(AppRef(target, [str(folder)]))


def load(ref: AppRef) -> App:
    """Import the module that *ref* names and return its app; used by `find_app` and by child processes."""
    for entry in reversed(ref.path):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    where, _, attribute = _split(ref.target)
    module = _from_file(Path(where), Path(ref.path[0])) if _is_file(where) else _imported(where)
    app = _app_in(module, attribute, ref.target)
    app.ref = AppRef(ref.target if not _is_file(where) else _absolute(ref), ref.path, ref.main_file)
    return app


def ref_of(app: App) -> AppRef | None:
    """How a child process finds *app*, or None when it is no module's variable (made in a function, or typed in)."""
    if app.ref is not None:
        return app.ref
    path = [str(Path(entry).resolve()) if entry else str(Path.cwd()) for entry in sys.path]
    # `__main__` last: a script that imports the app from its module must not be run again by every child.
    for name, module in sorted(sys.modules.items(), key=lambda item: item[0] == "__main__"):
        attribute = _attribute_of(module, app)
        if attribute is None:
            continue
        if name != "__main__":
            return AppRef(f"{name}:{attribute}", path)
        if module.__spec__ is not None:  # python -m package.module
            return AppRef(f"{module.__spec__.name}:{attribute}", path)
        file = getattr(module, "__file__", None)
        if file and Path(file).is_file():
            file = str(Path(file).resolve())
            return AppRef(f"{file}:{attribute}", path, main_file=file)
    return None


def import_included(patterns: Iterable[str]) -> list[ModuleType]:
    """Import every module that one of *patterns* (`shop.tasks`, `shop.*.tasks`) names.

    Raises:
        ConfigError: a pattern names no module at all.
    """
    modules: list[ModuleType] = []
    for pattern in patterns:
        names = list(_matching(pattern))
        if not names:
            raise ConfigError(f"include={pattern!r} names no module: looked for it in {_looked_in()}")
        modules += [_imported(name, f"include={pattern!r}: ") for name in names]
    return modules


def _matching(pattern: str) -> Iterator[str]:
    """The names of modules that match, a `*` standing for one or part of one segment."""
    first, *rest = pattern.split(".")
    if not first or "*" in first or not all(rest or [first]):
        raise ConfigError(f"include={pattern!r} must begin with the name of a package, as in 'shop.*.tasks'")
    names = [first] if importlib.util.find_spec(first) else []
    for segment in rest:
        names = [below for name in names for below in _below(name, segment)]
    yield from names


def _below(package: str, segment: str) -> list[str]:
    if "*" not in segment and "?" not in segment:
        name = f"{package}.{segment}"
        return [name] if _package_path(package) is not None and importlib.util.find_spec(name) else []
    import pkgutil

    path = _package_path(package)
    return sorted(
        f"{package}.{info.name}" for info in pkgutil.iter_modules(path or []) if fnmatchcase(info.name, segment)
    )


def _package_path(name: str) -> Any:
    return getattr(_imported(name), "__path__", None)


def _from_pyproject(cwd: Path) -> tuple[str | None, Path]:
    import tomllib

    for folder in (cwd, *cwd.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            try:
                settings = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("dayjob", {})
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file} cannot be read: {error}") from error
            target = settings.get("app")
            if target is not None and not isinstance(target, str):
                raise ConfigError(f"{file}: [tool.dayjob] app must be text like 'module:app', not {target!r:.80}")
            return target, folder
    return None, cwd


def _split(target: str) -> tuple[str, str, str]:
    where, colon, attribute = target.rpartition(":")
    if not colon:
        where, attribute = target, ""
    if not where or (colon and not all(part.isidentifier() for part in attribute.split("."))):
        raise ConfigError(f"app {target!r:.200} is no app: write module:app, as in 'shop.jobs:app'")
    return where, colon, attribute


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _absolute(ref: AppRef) -> str:
    where, colon, attribute = _split(ref.target)
    return f"{(Path(ref.path[0]) / where).resolve()}{colon}{attribute}"


def _from_file(file: Path, folder: Path) -> ModuleType:
    """Import *file*; inside a package under its full name, so that its relative imports work."""
    file = (folder / file).resolve()
    if not file.is_file():
        raise ConfigError(f"there is no file {file}")
    main = sys.modules.get("__main__")
    if main is not None and getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == file:
        return main
    root, names = file.parent, [file.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if all(name.isidentifier() for name in names):
        return _imported(".".join(names))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _imported(name: str, what: str = "") -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"{what}there is no module {error.name!r}; looked in {_looked_in()}") from None
        raise


def _looked_in() -> str:
    return ", ".join(entry or "." for entry in sys.path[:4]) + (" …" if len(sys.path) > 4 else "")


def _app_in(module: ModuleType, attribute: str, target: str) -> App:
    from dayjob.app import App

    if attribute:
        value: Any = module
        for part in attribute.split("."):
            value = getattr(value, part, None)
        if isinstance(value, App):
            return value
        what = "has no such variable" if value is None else f"holds {type(value).__name__}, not an App"
        raise ConfigError(f"app {target!r}: {module.__name__}:{attribute} {what}")
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise ConfigError(f"app {target!r}: the module {module.__name__} has no App; write app = App() in it")
    raise ConfigError(f"app {target!r}: which one? Write {' or '.join(f'{module.__name__}:{name}' for name in apps)}")


def _attribute_of(module: ModuleType, app: App) -> str | None:
    try:
        return next((name for name, value in vars(module).items() if value is app), None)
    except (TypeError, RuntimeError):  # modules may be proxies without a dict, or change while we look
        return None
