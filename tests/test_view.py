"""view_model.py: pictures of the network, by whatever draws here."""

import html
import os
import re
from pathlib import Path

import cv2
import pydot
import pytest
from conftest import Run

from pipeline.backend import import_keras

keras = import_keras()

from pipeline.errors import UserError  # noqa: E402
from pipeline.nn.googlenet import googlenet  # noqa: E402
from pipeline.plotting.diagram import network_graph  # noqa: E402
from pipeline.plotting.graphviz import draw_graph  # noqa: E402
from pipeline.recipe import Network  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "thin.keras"
    googlenet(Network(width=0.1), 4, means=(1.0, 2.0, 3.0)).save(path)
    return path


def test_blocks_fit_a_page(model: Path, tmp_path: Path, run: Run) -> None:
    run("view_model.py", "-m", model, "-o", tmp_path / "net.png")
    height, width, _ = cv2.imread(str(tmp_path / "net.png")).shape
    assert 600 < height < 2000 > width > 300


def test_jpeg_by_either_suffix(tmp_path: Path) -> None:
    graph = pydot.Dot("small", graph_type="digraph")
    graph.add_edge(pydot.Edge("a", "b"))
    for name in ("small.jpg", "small.jpeg"):
        draw_graph(graph, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8")


def test_svg_names_every_block_with_its_shape(model: Path, tmp_path: Path, run: Run) -> None:
    run("view_model.py", "-m", model, "-o", tmp_path / "net.svg")
    drawing = (tmp_path / "net.svg").read_text()
    assert "scale(1 1)" in drawing  # at another scale its edges are cut off
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawing))
    for name in ("stem", "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b", "classifier"):
        assert name in text
    for shape in ("64 x 64 x 3", "16 x 16 x 19", "2 x 2 x 102", "102 values"):
        assert shape in text
    assert f"{keras.saving.load_model(model).count_params():,} parameters" in text
    assert "thin.keras" in text


@pytest.mark.parametrize("layers", [False, True])
def test_names_of_any_kind_are_drawn(layers: bool, tmp_path: Path) -> None:
    """A block a name, the same name within it, and the title."""
    plain = ('a"b', "a:b", "a\\b", "\\", '"', "<<b>", "node", "{x|y}", "\u4e2d")
    names = (*plain, "\n\x1b\0", "\udcff")
    x = inputs = keras.Input((8, 8, 3))
    for name in names:
        part = keras.Input((8, 8, 3), name="inputs")
        x = keras.Model(part, keras.layers.ReLU(name=name)(part), name=name)(x)
    graph = network_graph(keras.Model(inputs, x), 8, "".join(names), layers)
    draw_graph(graph, tmp_path / "net.svg")
    drawing = (tmp_path / "net.svg").read_text(encoding="utf-8")
    text = html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawing)))
    for name in (*plain, r"\n\x1b\x00", r"\udcff"):
        assert text.count(name) >= 2


def test_svg_in_a_browser(tmp_path: Path, run: Run, browser: object) -> None:
    """Drawn in another font than it was laid out in, all text lies within its box and the page."""
    run("view_model.py", "-r", "best", "-o", tmp_path / "net.svg")
    browser.get((tmp_path / "net.svg").as_uri())
    texts, boxes = browser.execute_script(
        "const around = e => { const r = e.getBoundingClientRect(); return [r.left, r.right]; };"
        "const own = t => t.closest('g.node')?.querySelector('path, polygon')"
        " ?? document.documentElement;"
        "const texts = [...document.querySelectorAll('text')];"
        "return [texts.map(around), texts.map(own).map(around)]"
    )
    assert len(texts) > 30
    for (left, right), (least, most) in zip(texts, boxes, strict=True):
        assert least <= left < right <= most


def test_layers_of_the_recipes_network(tmp_path: Path, run: Run) -> None:
    run("view_model.py", "-r", "best", "--layers", "-o", tmp_path / "net.dot")
    text = (tmp_path / "net.dot").read_text()
    assert text.count("conv_5x5_norm") >= 9
    assert '"pool_3" -> "inception_3a/conv_1x1"' in text.replace("pool_3 ->", '"pool_3" ->')
    assert "4 x 4 x 1024" in text
    run("view_model.py", "-r", "best", "-o", tmp_path / "blocks.DOT")
    text = (tmp_path / "blocks.DOT").read_text()
    assert "GoogLeNet, recipe best" in text


def test_dot_draws_and_its_port_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, dot = pydot.Dot("small", graph_type="digraph"), tmp_path / "dot"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    dot.write_text('#!/bin/sh\necho "$@"\n')
    dot.chmod(0o755)
    draw_graph(graph, tmp_path / "net.pdf")
    assert (tmp_path / "net.pdf").read_text() == "-Tpdf\n"
    dot.write_text("#!/bin/sh\necho no plug-in >&2; exit 1\n")
    draw_graph(graph, tmp_path / "net.svg")
    assert "<svg" in (tmp_path / "net.svg").read_text()
    with pytest.raises(UserError, match="dot ended with no plug-in"):
        draw_graph(graph, tmp_path / "again.pdf")


def test_without_graphviz_a_pdf_is_refused_and_nothing_written(
    model: Path, tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "net.pdf"
    error = run("view_model.py", "-m", model, "-o", output, status=2, PATH=str(tmp_path)).stderr
    assert "install Graphviz" in error
    assert list(tmp_path.iterdir()) == []


def test_unknown_format(tmp_path: Path, run: Run) -> None:
    error = run("view_model.py", "-o", tmp_path / "net.bmp", status=2).stderr
    assert ".png, .svg, .pdf, .jpg, .dot" in error


def test_model_that_is_no_graph_from_one_input_is_refused() -> None:
    pixels = [keras.Input((8, 8, 3)) for _ in range(2)]
    of_two = keras.Model(pixels, keras.layers.Conv2D(4, 3)(keras.layers.Add()(pixels)))
    sequential = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU()])
    for model in (of_two, sequential):
        with pytest.raises(UserError, match="it is not a functional model with one input"):
            network_graph(model, 8, "title")


def test_file_that_is_no_model(tmp_path: Path, run: Run) -> None:
    (tmp_path / "x.keras").write_text("no")
    draw = ("view_model.py", "-o", tmp_path / "n.png", "-m")
    assert "x.keras is not a whole Keras file" in run(*draw, tmp_path / "x.keras", status=2).stderr
    assert "none.keras does not exist" in run(*draw, tmp_path / "none.keras", status=2).stderr
    assert not (tmp_path / "n.png").exists()
