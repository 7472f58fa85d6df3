"""The commands that the scripts propose run as they stand, from any folder."""

import importlib
import io
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import msgspec
import pytest
from attacks import KINDS
from conftest import ROOT, Run, heed_hangups, numbers

import model_train
from config.setup_config import RECIPES, RELEASED_MODEL
from pipeline.command_line import run_script, shell_command
from pipeline.recipe import Recipe
from pipeline.run.checkpoint import read_state

COMMAND = re.compile(r"\bpython (build_dataset|model_train|model_eval|view_model)\.py([^`#\n|]*)")
"""A script, and its arguments, in a document."""


def follow(command: str, folder: Path, *more: str) -> str:
    """Run a command in ``folder`` and return the one that it proposes next."""
    python, *arguments = shlex.split(command)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments, *more],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last.startswith("next: ")
    return last.removeprefix("next: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody works who keeps the scripts elsewhere: with a model trained for an epoch."""
    folder = tmp_path_factory.mktemp("my work")
    training = follow(f"python {ROOT}/build_dataset.py --sample", folder)
    evaluation = follow(training, folder, "-n", "1")
    drawing = follow(evaluation, folder)
    assert follow(drawing, folder) == evaluation
    assert sorted(path.name for path in (folder / "outs").iterdir()) == ["demo", "network.png"]
    return folder


def test_scripts_take_the_commands_of_the_documents() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = [path.read_text().replace("\\\n", " ") for path in documents]
    make = ["make", "--always-make", "--dry-run", "demo"]
    texts.append(subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    commands = [command for text in texts for command in COMMAND.findall(text)]
    assert len(commands) > 25
    for script, arguments in commands:
        words = shlex.split(arguments.replace("--process-id K", "--process-id 0"))
        importlib.import_module(script).parse_arguments(words)


def test_documents_count_the_attacks() -> None:
    count = sum(len(list(attacks())) for attacks in KINDS.values())
    assert f"| {count} attacks by " in (ROOT / "docs/guarantees.md").read_text()


def test_released_model_is_of_its_recipe() -> None:
    state = read_state(RELEASED_MODEL)
    assert state.recipe.differences(RECIPES[state.recipe_name]) == []
    assert state.epoch == state.epochs
    assert len(state.classes) == 200
    assert numbers(ROOT / "outs") == state.history
    assert RELEASED_MODEL.stat().st_size < 16e6


def test_recipe_of_an_older_record_has_the_values_that_came_later() -> None:
    values = msgspec.to_builtins(RECIPES["quick"])
    del values["augmentation"]["mixed_share"], values["evaluation_size"]
    older = msgspec.convert(values, Recipe)
    assert older.differences(RECIPES["quick"]) == []
    assert older.replaced({"batch_size": 2}) == replace(RECIPES["quick"], batch_size=2)


def test_missing_requirements_are_named() -> None:
    without_packages = [sys.executable, "-S", "-E", ROOT / "model_train.py", "--help"]
    done = subprocess.run(without_packages, capture_output=True, text=True)
    assert done.stderr.startswith("error: msgspec is not installed; pip install -r requirements")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("lost", "advice"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "the system's"),
        ("DLL load failed while importing cv2: module not found", "Microsoft's Visual C++"),
        ("dlopen(cv2.so, 0x0002): incompatible architecture", "Python for this Mac's"),
    ],
)
def test_missing_system_library_is_named(lost: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({lost!r})")
    command = [sys.executable, ROOT / "build_dataset.py", "-d", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stderr.startswith(f"error: {lost}; install {advice}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_commands_run_elsewhere(folder: Path) -> None:
    """The fixture followed them all; a second build proposes a second run."""
    again = follow(f"python {ROOT}/build_dataset.py --sample", folder)
    assert shlex.split(again)[-2:] == ["-o", "outs/demo-2"]
    photo = next((folder / "digits" / "val").rglob("*.JPEG"))
    report = follow(
        f"python {ROOT}/model_eval.py -m outs/demo --images {photo.as_posix()!r}", folder
    )
    assert follow(report, folder).startswith("open ")


def test_commands_are_short_beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    for folder, script in ((ROOT, "view_model.py"), (Path("/"), f"{ROOT}/view_model.py")):
        monkeypatch.chdir(folder)
        assert shell_command("view_model.py", {"-m": "a b"}) == f"python {script} -m 'a b'"


def test_commands_for_windows_shells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read by cmd, PowerShell and Git Bash alike; cmd takes no single quotes."""
    monkeypatch.setattr("pipeline.command_line.ON_WINDOWS", True)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.chdir(ROOT)
    flags = {"-m": PureWindowsPath(r"outs\quick"), "-o": PureWindowsPath(r"C:\my runs\1")}
    expected = 'python model_train.py -m outs/quick -o "C:/my runs/1"'
    assert shell_command("model_train.py", flags) == expected
    for name in ("epoch-004-b.keras", "epoch-004-a.keras"):
        (tmp_path / name).touch()
    pattern = f"{tmp_path}/epoch-004-*.keras"
    monkeypatch.setattr("sys.argv", ["model_train.py", "-m", pattern, "no-*.jpg", "-e", "4"])
    for name in ("stdout", "stderr"):  # put back afterwards, as what else a script changes for good
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr("pipeline.command_line.ignore_host_settings", lambda: None)
    monkeypatch.setattr("pipeline.command_line.ended_by_signals", nullcontext)
    run_script(lambda argv: None)
    found = [str(tmp_path / f"epoch-004-{letter}.keras") for letter in "ab"]
    assert sys.argv == ["model_train.py", "-m", *found, "no-*.jpg", "-e", "4"]


def test_script_within_a_notebook_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By %run, whose stdout has no buffer."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit) as end:
        run_script(lambda argv: None)
    assert end.value.code == 2
    assert "in a notebook, with !python" in capsys.readouterr().err


def test_released_model_is_found_from_anywhere(folder: Path) -> None:
    photo = next((folder / "digits" / "val").rglob("*.JPEG"))
    naming = f"python {ROOT}/model_eval.py --images {shlex.quote(str(photo))}"
    drawing = follow(naming, folder)
    assert drawing.startswith(f"python {ROOT}/view_model.py -m ")
    assert follow(drawing, folder) == f"python {ROOT}/build_dataset.py --download"


def test_without_data_the_download_is_next(tmp_path: Path) -> None:
    drawing = f"python {ROOT}/view_model.py -r demo -o network.svg"
    assert follow(drawing, tmp_path) == f"python {ROOT}/build_dataset.py --download"
    assert "32 x 32 x 3" in (tmp_path / "network.svg").read_text()  # what demo ends with


@pytest.mark.parametrize(("wrapper", "status"), [((), 129), (("nohup",), 0)])
def test_a_closed_terminal_ends_a_script_unless_nohup_keeps_it(
    wrapper: tuple[str, ...], status: int
) -> None:
    code = (
        "import os, signal\n"
        "from pipeline.command_line import run_script\n"
        "run_script(lambda arguments: os.kill(os.getpid(), signal.SIGHUP))\n"
    )
    command = [*wrapper, sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, preexec_fn=heed_hangups
    )
    assert done.returncode == status
    assert done.stderr == ("stopped by SIGHUP\n" if status else "")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("PATIENCE: Count = 5", "PATIENCE: Count = 0", "PATIENCE is 0"),
        ("SEED: Seed = 42", "SEED: Seed = -1", "SEED is -1"),
        ("SEED: Seed = 42", "SEDE: Seed = 42", "has no SEED; put it back"),
        ("SEED: Seed = 42", "SEED: Seed", "SEED has no value"),
        ("RECIPES = {", "RECIPE = {", "RECIPES has no value"),
        ("CLASSES: Count = 200", "CLASSES: Count = 2e2", "CLASSES is 200.0"),
        ('("quick", "overnight", "demo")', '("quick")', "CPU_RECIPES is 'quick'"),
        ('("quick", "overnight", "demo")', '("quik",)', "RECIPES has no 'quik'"),
        ("    batch_size=384,", '    batch_size="384",', "Expected `int`, got `str`"),
        ('= Path("digits")', '= "digits"', "SAMPLE is 'digits'"),
        ('DEFAULT_RECIPE: str = "published"', 'DEFAULT_RECIPE: str = "x"', "DEFAULT_RECIPE is 'x'"),
        ("epochs=60", "epohcs=60", "unexpected keyword argument 'epohcs'"),
        ("epochs=60,", "epochs=60", "invalid syntax"),
        ("epochs=60", "epochs=sixty", "name 'sixty' is not defined"),
    ],
)
def test_slip_in_the_settings_is_one_line(
    right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    for folder in ("config", "pipeline"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "build_dataset.py", tmp_path)
    settings = tmp_path / "config" / "setup_config.py"
    text = settings.read_text()
    assert text.count(right) == 1
    settings.write_text(text.replace(right, wrong))
    done = subprocess.run(
        [sys.executable, "build_dataset.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert re.match("error: (recipe 'quick' in )?config/setup_config.py", done.stderr)
    assert said in done.stderr


def test_command_with_names_that_begin_like_flags() -> None:
    flags = {"-r": "quick", "-o": Path("-x"), "--hdf5": Path("-b/c d"), "--keep": None}
    _, _, *arguments = shlex.split(shell_command("model_train.py", flags))
    args = model_train.parse_arguments(arguments)
    assert (args.output, args.hdf5, args.recipe) == (Path("-x"), Path("-b/c d"), "quick")


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit there")
def test_too_little_memory_is_one_line(tmp_path: Path, run: Run) -> None:
    done = run(
        "view_model.py", "-o", tmp_path / "network.svg", status=2,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)),
        OPENBLAS_NUM_THREADS="1",  # its buffers, by the core, may take all of it
    )  # fmt: skip
    assert done.stderr.startswith("error: this machine or its device is out of memory; ")
