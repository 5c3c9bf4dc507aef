"""``priorpaint doctor``: what this installation has and lacks, for its owner and for a report of a fault."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option

from priorpaint.errors import show_bytes

from .terminal import echo

PACKAGE = "priorpaint"
_OWN_EXTRAS = {"all", "dev", "docs"}  # of other extras, or for those who change the package
# "diffusers>=0.35; extra == 'hub'", also with a marker of the Python version before the extra.
_NEED = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;\s*(.*))?")
_PYTHON = re.compile(r"python_version\s*(<|>=)\s*['\"]3\.(\d+)['\"]")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")
_WIDTH = len("versions")


def doctor(as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, memory, caches and extras of this installation, and what is wrong with it."""
    found = examination()
    if as_json:
        echo(json.dumps(found, indent=1))
    else:
        _show(found)
    if found["problems"]:
        raise Exit(1)


def examination() -> dict[str, Any]:
    """What there is, as JSON values; sizes in bytes. ``problems`` are sentences, none where all is well."""
    base, extras = requirements()
    problems = [
        f"{name} {text or 'is missing'}; run: pip install --upgrade {PACKAGE}" for name, text in _lacking(base).items()
    ]
    devices, trouble = _devices()
    priors, missing = ([], []) if trouble else _priors()
    return {
        "versions": {
            PACKAGE: _own_version(),
            "python": platform.python_version(),
            **{name: _version(name) for name in base},
        },
        "system": platform.platform(),
        "devices": devices,
        "memory": _memory(),
        "folders": {} if trouble else _folders(),
        "priors": priors,
        "extras": {
            extra: {
                "versions": {name: _version(name) for name in needs},
                "lacks": [" ".join([name, *text.split()]) for name, text in _lacking(needs).items()],
            }
            for extra, needs in extras.items()
        },
        "problems": [*problems, *trouble, *missing],
    }


def requirements(lines: Iterable[str] | None = None) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What the package needs on this Python: library -> versions such as ">=2.4", at all and for each extra.

    Args:
        lines: of the metadata; None are those of the installed package, which may be absent beside a source tree.
    """
    if lines is None:
        try:
            lines = metadata.requires(PACKAGE) or ()
        except metadata.PackageNotFoundError:
            lines = ()
    base: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = {}
    for line in lines:
        parts = _NEED.fullmatch(line)
        if parts is None or not _for_this_python(parts[3] or ""):
            continue
        extra = _EXTRA.search(parts[3] or "")
        if extra is None:
            base[parts[1]] = parts[2].strip()
        elif extra[1] not in _OWN_EXTRAS:
            extras.setdefault(extra[1], {})[parts[1]] = parts[2].strip()
    return base, extras


def _for_this_python(marker: str) -> bool:
    minor = sys.version_info.minor
    return all((minor < int(m[2])) if m[1] == "<" else (minor >= int(m[2])) for m in _PYTHON.finditer(marker))


def _lacking(needs: dict[str, str]) -> dict[str, str]:
    """Of these libraries those that are missing, or too old: what is the matter with them."""
    out = {}
    for name, versions in needs.items():
        have, least = _version(name), re.search(r">=\s*([\d.]+)", versions)
        if have is None:
            out[name] = ""
        elif least and _numbers(have) < _numbers(least[1]):
            out[name] = f"{have} is older than {least[1]}"
    return out


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _own_version() -> str:
    from priorpaint import __version__

    return __version__


def _devices() -> tuple[list[dict[str, Any]], list[str]]:
    """Where torch can compute; why it cannot."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of CUDA that is missing or of another version
        return [], [f"torch cannot be imported ({type(error).__name__}: {error}); install it again."]
    cpu = {"name": "cpu", "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    devices: list[dict[str, Any]] = [cpu]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        model = torch.cuda.get_device_name(index)
        devices.append({"name": f"cuda:{index}", "model": model, "memory": total, "free": free})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps"})
    return devices, []


def _memory() -> dict[str, int | None]:
    """Of this machine: all, and what is free, where the system says it."""
    free = total = None
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        said = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
        free = 1024 * int(said[1]) if said else None
    except (AttributeError, ValueError, OSError):  # another system
        pass
    return {"total": total, "free": free}


def _folders() -> dict[str, dict[str, Any]]:
    """Where things are kept between runs: what is meant -> path, size, and the variable that moves it."""
    from priorpaint.inpainting.adapting import cache_folder
    from priorpaint.priors.address_book import home
    from priorpaint.priors.hub import hub_cache

    places = {"names of priors": (home(), "PRIORPAINT_HOME"), "adapted priors": (cache_folder(), "PRIORPAINT_CACHE")}
    if (cache := hub_cache()) is not None:
        places["models of the hub"] = (cache, "HF_HOME")
    return {
        what: {"path": str(path), "bytes": _size(path), "variable": variable}
        for what, (path, variable) in places.items()
    }


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed; 0 where there is none."""
    total = 0
    for inside, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(Path(inside, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _priors() -> tuple[list[str], list[str]]:
    """The embedded priors that are there, and a sentence for each that is not."""
    from priorpaint.priors.loading import PRIORS, embedded_file

    there = [name for name in PRIORS if embedded_file(name).is_file()]
    return there, [f"the weights of {name} are missing; install {PACKAGE} again." for name in PRIORS.keys() - there]


def _show(found: dict[str, Any]) -> None:
    versions = [f"{name} {version or '(missing)'}" for name, version in found["versions"].items()]
    _line("versions", ", ".join(versions))
    _line("system", found["system"])
    for device in found["devices"]:
        _line("device", _device(device))
    memory = found["memory"]
    _line("memory", _room(memory["total"], memory["free"]) or "the system does not say")
    for what, place in found["folders"].items():
        _line("folder", f"{what}: {place['path']}, {_bytes(place['bytes'])} ({place['variable']})")
    if found["priors"]:
        _line("priors", ", ".join(found["priors"]))
    for extra, state in found["extras"].items():
        have = ", ".join(f"{name} {version}" for name, version in state["versions"].items() if version)
        lacks = ", ".join(state["lacks"])
        _line("extra", f"{extra}: lacks {lacks}; pip install '{PACKAGE}[{extra}]'" if lacks else f"{extra}: {have}")
    for sentence in found["problems"]:
        echo(f"Warning: {sentence}", err=True)


def _line(word: str, text: str) -> None:
    echo(f"{word:<{_WIDTH}}  {text}")


def _device(device: dict[str, Any]) -> str:
    if device["name"] == "cpu":
        return f"cpu, {device['cores']} cores, of which torch uses {device['threads']}"
    return ", ".join(
        filter(None, [device["name"], device.get("model"), _room(device.get("memory"), device.get("free"))])
    )


def _room(total: int | None, free: int | None) -> str:
    if total is None:
        return ""
    return _bytes(total) + (f", {_bytes(free)} free" if free is not None else "")


def _bytes(count: int) -> str:
    return show_bytes(count) if count else "nothing yet"
