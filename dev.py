#!/usr/bin/env python3
"""Set up what is missing on this machine, then run the demo or the tests.

python dev.py demo [--view] [arguments of `napari-delse demo`]
python dev.py test [arguments of pytest]
python dev.py libraries      installs the system libraries that windows need on a bare Debian or Ubuntu

Everything goes into the folders `.dev` and `.tox` of this checkout: remove them to start afresh.
"""

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEV = ROOT / ".dev"
BIN = "Scripts" if os.name == "nt" else "bin"

# What Qt's window plugin and OpenGL load, and the Debian package that has it.
QT_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libOpenGL.so.0": "libopengl0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
# pip's settings, so that uv finds packages where pip does
UV_NAMES = {
    "PIP_CERT": "SSL_CERT_FILE",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
}


def say(message: str) -> None:
    print(message, flush=True)


def child_environment() -> dict[str, str]:
    """Return the environment of the programs started here."""
    env = dict(os.environ)
    # napari starts in half the time when its bytecode is kept
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    for pip_name, uv_name in UV_NAMES.items():
        if env.get(pip_name):
            env.setdefault(uv_name, env[pip_name])
    return env


def run(command: Sequence[str | Path], env: dict[str, str] | None = None) -> int:
    """Run a program, its output going where ours goes."""
    return subprocess.call([str(part) for part in command], env=env or child_environment())


def must(command: Sequence[str | Path], what: str) -> None:
    """Run a program that we cannot go on without."""
    if code := run(command):
        say(f"{what} failed: {shlex.join(map(str, command))}")
        sys.exit(code)


# ---------------------------------------------------------------- system libraries


def is_missing(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return True
    return False


def missing_packages(*, screen: bool) -> list[str]:
    """Debian packages that windows need and that are not here; `screen` asks for a virtual one too."""
    if not sys.platform.startswith("linux"):
        return []
    packages = [package for library, package in QT_LIBRARIES.items() if is_missing(library)]
    drivers = [path for folder in ("/usr/lib", "/usr/lib64") for path in Path(folder).glob("**/dri/*_dri.so")]
    if not drivers:
        packages.append("libgl1-mesa-dri")
    if screen and not shutil.which("Xvfb"):
        packages.append("xvfb")
    return packages


def install_packages(packages: Iterable[str], purpose: str) -> bool:
    """Install Debian packages, or print the command that does; True when they are there."""
    packages = list(packages)
    if not packages:
        return True
    apt = shutil.which("apt-get")
    say(f"{purpose} needs system packages that are missing here: {', '.join(packages)}.")
    if apt is None:
        say("They have these names on Debian and Ubuntu; install your system's packages of the same libraries.")
        return False
    command = [apt, "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() == 0:
        say("Installing them with apt-get ...")
        env = child_environment() | {"DEBIAN_FRONTEND": "noninteractive"}
        run([apt, "update", "-qq"], env)
        if run([*command, "-qq"], env) == 0:
            return True
        say("apt-get could not install them.")
    say("Please run this command, then start again:")
    say(f"    sudo apt-get update && sudo {shlex.join(['apt-get', *command[1:]])}")
    return False


# ---------------------------------------------------------------- Python environments


def python_of(folder: Path) -> Path:
    return folder / BIN / ("python.exe" if os.name == "nt" else "python")


def program(folder: Path, name: str) -> Path:
    return folder / BIN / (f"{name}.exe" if os.name == "nt" else name)


def is_current(folder: Path, stamp: str) -> bool:
    mark = folder / "stamp.txt"
    return mark.is_file() and mark.read_text(encoding="utf-8") == stamp and python_of(folder).exists()


def stamp_of(*parts: str) -> str:
    """Digest of everything an environment depends on."""
    digest = hashlib.sha256()
    for part in (sys.version, str(ROOT), *parts):
        digest.update(part.encode() + b"\0")
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def make_tools() -> Path:
    """Environment with uv and tox; everything else is installed with these."""
    folder = DEV / "tools"
    wanted = ["tox", "tox-uv"]
    stamp = stamp_of("tools")
    if is_current(folder, stamp):
        return folder
    say("Preparing the tools (uv and tox) ...")
    shutil.rmtree(folder, ignore_errors=True)
    constraints = ROOT / "constraints.txt"
    if uv := shutil.which("uv"):
        must([uv, "venv", "--quiet", "--python", sys.executable, folder], "Making an environment")
        install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python_of(folder)]
    else:
        make_venv(folder)
        install = [python_of(folder), "-m", "pip", "install", "--quiet"]
    must([*install, "--constraint", constraints, *wanted], "Installing uv and tox")
    (folder / "stamp.txt").write_text(stamp, encoding="utf-8")
    return folder


def make_venv(folder: Path) -> None:
    """Make an environment with the standard library alone; Debian keeps that in a package of its own."""
    if importlib.util.find_spec("ensurepip") is None:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not install_packages([name], "A Python environment"):
            sys.exit(1)
    must([sys.executable, "-m", "venv", folder], "Making an environment")


def make_demo_environment() -> Path:
    """Environment with the package and napari, installed from this checkout."""
    folder = DEV / "demo"
    stamp = stamp_of("demo")
    if is_current(folder, stamp):
        return folder
    uv = program(make_tools(), "uv")
    say("Installing napari-delse, napari and torch (the first time this takes a few minutes) ...")
    shutil.rmtree(folder, ignore_errors=True)
    must([uv, "venv", "--quiet", "--python", sys.executable, folder], "Making an environment")
    package: list[str | Path] = ["--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[all]"]
    must([uv, "pip", "install", "--quiet", "--python", python_of(folder), *package], "Installing napari-delse")
    (folder / "stamp.txt").write_text(stamp, encoding="utf-8")
    return folder


# ---------------------------------------------------------------- commands


def demo(arguments: list[str]) -> int:
    """Run `napari-delse demo` in its environment."""
    if "--view" in arguments:
        install_packages(missing_packages(screen=False), "The napari window")
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            say("There is no screen here, so the demo runs without --view.")
            arguments = [argument for argument in arguments if argument != "--view"]
    folder = make_demo_environment()
    say("Running the demo ...")
    return run([program(folder, "napari-delse"), "demo", *arguments])


def test(arguments: list[str]) -> int:
    """Run ruff, mypy and pytest in tox."""
    screen = not os.environ.get("DISPLAY")
    if not install_packages(missing_packages(screen=screen), "Testing the windows"):
        return 1
    tools = make_tools()
    say("Running ruff, mypy and the tests (the first time installs everything for them) ...")
    env = child_environment()
    env["PATH"] = os.pathsep.join([str(tools / BIN), env.get("PATH", "")])
    command: list[str | Path] = [program(tools, "tox"), "run", "--conf", ROOT / "tox.ini", "-e", "py"]
    if arguments:
        command += ["--", *arguments]
    return run(command, env)


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets a sentence, not a traceback
        say(f"napari-delse needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
        return 2
    if arguments[:1] == ["demo"]:
        return demo(arguments[1:])
    if arguments[:1] == ["test"]:
        return test(arguments[1:])
    if arguments == ["libraries"]:
        return 0 if install_packages(missing_packages(screen=True), "Windows") else 1
    say(str(__doc__).strip())
    return 0 if arguments in ([], ["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
