"""The package as a whole: what importing it costs, who may import whom, what napari and the shell see of it."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_delse

PACKAGE = Path(napari_delse.__file__).parent

# Each room holds packages and modules; they may import from the rooms above it and from their own.
ROOMS = (
    {
        "_filelock",
        "_giving_up",
        "_words",
        "_writing",
        "evolution",
        "geometry",
        "levelset",
        "metrics",
        "settings",
        "synthetic",
    },
    {"annotator", "data", "losses", "model"},
    {"checkpoint"},
    {"confidence", "predict", "train"},
    {"annotation", "evaluation", "export", "propagation"},
    {"finetuning", "stacks"},
    {"_sample_data", "commands", "demo", "figures", "widgets"},
    {"__main__", "cli"},
)
LEVEL = {member: level for level, room in enumerate(ROOMS) for member in room}
# What each of the widgets alone is made of.
FOLDERS = {"_annotate": "annotate", "_batch": "batch", "_finetune": "finetune"}
GUI = {"magicgui", "napari", "PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "superqt", "vispy"}
GUI_MODULES = {"widgets"}
# `napari-delse demo --view` opens a viewer: an import inside that function, never at the top of the module.
VIEWER_ON_DEMAND = {"demo"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Full name of a module, or of a package for its ``__init__.py``."""
    return ".".join(("napari_delse", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def member_of(path: Path) -> str:
    """The package or module right below ``napari_delse`` that the file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(nodes: list[ast.AST], path: Path) -> set[str]:
    """Full names of the modules that these statements import."""
    package = ("napari_delse", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def statements(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_from_here(path: Path) -> set[str]:
    """What the file imports from `napari_delse` by full names, without the names that belong to the package itself."""
    own = {f"napari_delse.{name}" for name in napari_delse.__all__} | {"napari_delse"}
    return {name for name in imported(statements(path), path) - own if name.startswith("napari_delse.")}


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    member = member_of(path)
    if member == "__init__":
        return
    assert member in LEVEL, f"{member} is new: add it to its room in ROOMS of {Path(__file__).name}"
    for name in imported_from_here(path):
        other = name.split(".")[1]
        assert other in LEVEL, f"{member} imports {other} from the package; import from the module that it lives in"
        assert LEVEL[other] <= LEVEL[member], f"{member} imports {other}, which stands above it"


def test_every_room_is_there():
    assert set(LEVEL) == {member_of(path) for path in sources()} - {"__init__"}


def test_packages_do_not_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in sources():
        if (member := member_of(path)) != "__init__":
            others = {name.split(".")[1] for name in imported_from_here(path)}
            graph.setdefault(member, set()).update(others - {member})
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_modules_do_not_import_each_other_in_a_circle():
    modules = {name_of(path): path for path in sources()}
    graph = {}
    for module, path in modules.items():
        if module != "napari_delse":
            names = imported_from_here(path)
            graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_folder_of_a_widget_is_imported_by_that_widget_alone(path):
    for name in imported_from_here(path):
        package, _, rest = name.partition("napari_delse.widgets.")
        folder = rest.partition(".")[0]
        if not package and folder in FOLDERS:
            importer = name_of(path).removeprefix("napari_delse.widgets.").partition(".")[0]
            assert importer in (folder, FOLDERS[folder]), f"{name_of(path)} imports {name}; move what both need"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_core_imports_without_gui(path):
    member = member_of(path)
    if member in GUI_MODULES:
        return
    nodes = statements(path)
    if member in VIEWER_ON_DEMAND:
        nodes = list(ast.parse(path.read_text(encoding="utf-8")).body)
    names = {name.partition(".")[0] for name in imported(nodes, path)}
    assert not names & GUI, f"{member} belongs to the core and imports {', '.join(sorted(names & GUI))}"


def test_every_package_is_built_into_the_wheel():
    checkout = Path(__file__).parents[1]
    built = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(checkout / "src") for path in (checkout / "src").rglob("__init__.py")]
    assert sorted(built) == sorted(["napari_delse.sample_data", *(".".join(folder.parts) for folder in folders)])


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("statement", ["import napari_delse", "import napari_delse._sample_data"])
def test_importing_the_package_loads_neither_torch_nor_gui(statement):
    loaded = modules_loaded_by(statement)
    assert "napari_delse" in loaded
    assert not loaded & (GUI | {"torch", "skimage"})


def test_public_names_are_listed_and_others_refused():
    assert set(napari_delse.__all__) <= set(dir(napari_delse))
    with pytest.raises(AttributeError, match=r"no attribute 'Predicter'; it has .*Predictor"):
        _ = napari_delse.Predicter


@pytest.mark.parametrize("name", sorted(napari_delse.__all__))
def test_public_names_are_there(name):
    assert getattr(napari_delse, name) is getattr(napari_delse, name)


def test_manifest_is_valid_and_every_command_imports():
    manifest = PluginManifest.from_distribution("napari-delse")
    manifest.validate_imports()
    assert manifest.display_name == "DELSE"
    assert [widget.display_name for widget in manifest.contributions.widgets or []] == [
        "Annotate (DELSE)",
        "Fine-tune (DELSE)",
        "Batch (DELSE)",
    ]
    assert {sample.key for sample in manifest.contributions.sample_data or []} == {"cells", "coins"}


def test_npe2_finds_the_icon():
    manifest = PluginManifest.from_distribution("napari-delse")
    module, _, name = str(manifest.icon).partition(":")
    assert module == "napari_delse"
    assert (PACKAGE / name).read_text(encoding="utf-8").startswith("<svg")


def test_metadata_is_what_the_hub_reads():
    about = metadata("napari-delse")
    assert about["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in about.get_all("Classifier")
    assert (PACKAGE / "py.typed").is_file()
    (script,) = entry_points(group="console_scripts", name="napari-delse")
    assert script.value == "napari_delse.cli:main"


def test_runtime_needs_no_qt_binding():
    required = [line for line in metadata("napari-delse").get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in required if line.lower().startswith(("pyqt", "pyside", "napari["))]
    assert "torch>=2.2" in required
