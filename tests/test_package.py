"""The package as a whole: what importing it costs, who may import whom, what napari and the shell see of it."""

import ast
import subprocess
import sys
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_delse

PACKAGE = Path(napari_delse.__file__).parent

# Each room may import from the rooms above it and from its own.
ROOMS = (
    {"annotator", "evolution", "files", "geometry", "images", "levelset", "metrics", "prompts", "synthetic"}
    | {"_colours", "_fingerprints", "_giving_up", "_lazy_arrays", "_ome_zarr", "_page", "_threads", "settings"}
    | {"_synthetic_bodies", "_synthetic_camera", "_synthetic_cells", "_synthetic_shapes"},
    {"_crop_records", "crops", "data", "labelled_planes", "losses", "model"},
    {"checkpoint"},
    {"confidence", "distributed", "predict", "train"}
    | {"_interrupt", "_training_batches", "_training_log", "_training_state"},
    {"evaluation", "propagation", "recipes", "stacks"}
    | {"_propagation_gap", "_propagation_shapes", "planewise"}
    | {"finetune", "finetune_data", "finetune_jobs", "finetune_process", "finetune_result", "finetune_run"}
    | {"finetune_survey", "held_out"}
    | {"labelled_sources", "model_store"}
    | {"actions", "carrying", "edits", "history", "operations", "policy", "preferences", "review", "session"}
    | {"_filelock", "evolution_view", "journal", "records", "replay"}
    | {"_export_images", "_export_objects", "_export_source", "export", "outlines"}
    | {"_label_files", "_work_folder", "batch_files", "batches", "cluster", "coarse", "key_planes"},
    {"__main__", "_overlay", "_panels", "_sample_data", "cli", "demo", "figures", "widgets"}
    | {
        "_cli_common",
        "_cli_evaluate",
        "_cli_figure",
        "_cli_files",
        "_cli_finetune",
        "_cli_models",
        "_cli_segment",
        "_cli_train",
    },
)
LEVEL = {module: level for level, room in enumerate(ROOMS) for module in room}
GUI = {"magicgui", "napari", "PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "superqt", "vispy"}
GUI_MODULES = {"widgets"}
# `napari-delse demo --view` opens a viewer: an import inside that function, never at the top of the module.
VIEWER_ON_DEMAND = {"demo"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
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


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    module = module_of(path)
    if module == "__init__":
        return
    assert module in LEVEL, f"{module} is new: add it to its room in ROOMS of {Path(__file__).name}"
    for name in imported(statements(path), path):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top != "napari_delse" or other in ("", "__version__"):
            continue
        assert other in LEVEL, f"{module} imports {other} from the package; import from the module that it lives in"
        assert LEVEL[other] <= LEVEL[module], f"{module} imports {other}, which stands above it"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_core_imports_without_gui(path):
    module = module_of(path)
    if module in GUI_MODULES:
        return
    nodes = statements(path)
    if module in VIEWER_ON_DEMAND:
        nodes = list(ast.parse(path.read_text(encoding="utf-8")).body)
    names = {name.partition(".")[0] for name in imported(nodes, path)}
    assert not names & GUI, f"{module} belongs to the core and imports {', '.join(sorted(names & GUI))}"


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
