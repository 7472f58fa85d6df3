"""A network as a Graphviz graph: a node for each block, which fits a page, or for each layer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import pydot

from pipeline.errors import UserError
from pipeline.printing import printable

FONT = "Helvetica"
GRAPH_STYLE = {"fontname": FONT, "fontsize": 12, "labelloc": "t", "nodesep": 0.15, "ranksep": 0.2,
               "bgcolor": "white"}  # fmt: skip
NODE_STYLE = {"fontname": FONT, "fontsize": 11, "shape": "box", "style": "filled,rounded",
              "color": "#555555", "margin": "0.3,0.05"}  # fmt: skip
"""Margins leave room where an SVG is shown in a wider font than it was laid out in."""
FRAME_STYLE = {"fontname": FONT, "labeljust": "l", "style": "rounded", "color": "#999999",
               "bgcolor": "#FAFAFA"}  # fmt: skip
EDGE_STYLE = {"color": "#555555", "arrowsize": 0.6}
STEM, INCEPTION, OTHER = "#CDE7F5", "#FFE3B3", "#FFFFFF"
COLOURS = {
    keras.layers.Conv2D: INCEPTION,
    keras.layers.MaxPooling2D: "#C9E9DD",
    keras.layers.GlobalAveragePooling2D: "#C9E9DD",
    keras.layers.BatchNormalization: "#E8E0F0",
    keras.layers.Normalization: "#E8E0F0",
    keras.layers.Dropout: "#EFEFEF",
    keras.layers.Dense: "#F6D5C6",
}
"""Light forms of Okabe and Ito's palette, on which black text is easy to read."""


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of a model, with its inputs and shapes for a known input shape of the model."""

    layer: keras.Layer
    inputs: tuple[str, ...]
    """Names of the layers before it."""
    input_shape: tuple[int | None, ...]
    """Of its first input, the batch axis first."""
    output_shape: tuple[int | None, ...]


def place_layers(model: keras.Model, input_shape: tuple[int | None, ...]) -> list[PlacedLayer]:
    """Return the layers of a functional model in order, with their shapes for ``input_shape``.

    Raises:
        UserError: It is no functional model, or one of several inputs.
    """
    config = model.get_config()
    if "input_layers" not in config or len(model.inputs) > 1:
        raise UserError(
            f"cannot draw the model {model.name!r}: it is not a functional model with one input; "
            "name a checkpoint of model_train.py with -m"
        )
    placed: dict[str, PlacedLayer] = {}
    for entry in config["layers"]:
        layer = model.get_layer(entry["name"])
        inputs = tuple(_source_layers(entry["inbound_nodes"]))
        shapes = [placed[name].output_shape for name in inputs] or [input_shape]
        output = shapes[0]
        if inputs:
            output = layer.compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
        placed[layer.name] = PlacedLayer(layer, inputs, shapes[0], output)
    return list(placed.values())


def multiply_adds(model: keras.Model, input_shape: tuple[int | None, ...]) -> int:
    """Return the multiply-adds of all convolutions and dense layers per image."""
    total = 0
    for placed in place_layers(model, input_shape):
        layer = placed.layer
        if isinstance(layer, keras.Model):
            total += multiply_adds(layer, placed.input_shape)
        elif isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = placed.output_shape
            total += height * width * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def network_graph(
    model: keras.Model, image_size: int, title: str, layers: bool = False
) -> pydot.Dot:
    """Return the graph of blocks, or with ``layers`` of every layer, below a title and totals.

    Shapes and totals are for an image size of ``image_size`` pixels, if the model leaves it free.

    Raises:
        UserError: As ``place_layers``.
    """
    input_shape = (None, *(side or image_size for side in model.input_shape[1:]))
    heading = _quoted(
        title,
        f"{model.count_params():,} parameters",
        f"{multiply_adds(model, input_shape) / 1e6:,.0f} million multiply-adds an image",
    )
    graph = pydot.Dot("network", graph_type="digraph", label=heading, **GRAPH_STYLE)
    graph.set_node_defaults(**NODE_STYLE)
    graph.set_edge_defaults(**EDGE_STYLE)
    ends: dict[str, str] = {}
    for placed in place_layers(model, input_shape):
        name = placed.layer.name
        feeds = [ends[source] for source in placed.inputs]
        if layers and isinstance(placed.layer, keras.Model):
            ends[name] = _add_frame(graph, placed, feeds)
        else:
            ends[name] = name
            graph.add_node(_node(name, placed))
            for start in feeds:
                graph.add_edge(_edge(start, name))
    return graph


def _add_frame(graph: pydot.Dot, block: PlacedLayer, feeds: list[str]) -> str:
    """Draw the layers of a block in a frame, fed from ``feeds``; return its last node."""
    title = block.layer.name
    frame = pydot.Cluster(str(len(graph.get_subgraphs())), label=_quoted(title), **FRAME_STYLE)
    last = ""
    ends: dict[str, list[str]] = {}
    for placed in place_layers(block.layer, block.input_shape):
        if not placed.inputs:
            ends[placed.layer.name] = feeds
            continue
        last = f"{title}/{placed.layer.name}"
        ends[placed.layer.name] = [last]
        frame.add_node(_node(last, placed))
        for source in placed.inputs:
            for start in ends[source]:
                graph.add_edge(_edge(start, last))
    graph.add_subgraph(frame)
    return last


def _node(name: str, placed: PlacedLayer) -> pydot.Node:
    layer = placed.layer
    _, *sides = placed.output_shape
    shape = " x ".join(map(str, sides)) if len(sides) > 1 else f"{sides[0]} values"
    parameters = f", {layer.count_params():,} parameters" if layer.count_params() else ""
    label = _quoted(f"{layer.name}{_detail(layer)}", f"{shape}{parameters}")
    return pydot.Node(_quoted(name), label=label, fillcolor=_colour(layer))


def _edge(start: str, end: str) -> pydot.Edge:
    return pydot.Edge(_quoted(start), _quoted(end))


def _quoted(*lines: str) -> str:
    """Return ``lines`` as a quoted string of Graphviz, whatever they hold."""
    escaped = (printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _detail(layer: keras.Layer) -> str:
    """Return what the name does not say: kernel, stride, rate."""
    if isinstance(layer, keras.layers.Conv2D):
        height, width = layer.kernel_size
        stride = f", stride {layer.strides[0]}" if layer.strides[0] > 1 else ""
        return f": {height}x{width}{stride}"
    if isinstance(layer, keras.layers.MaxPooling2D):
        height, width = layer.pool_size
        return f": max {height}x{width}, stride {layer.strides[0]}"
    return f": {layer.rate:g}" if isinstance(layer, keras.layers.Dropout) else ""


def _colour(layer: keras.Layer) -> str:
    if isinstance(layer, keras.Model):
        return INCEPTION if layer.name.startswith("inception") else STEM
    return COLOURS.get(type(layer), OTHER)


def _source_layers(inbound: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs are in a layer's serialised arguments."""
    if isinstance(inbound, dict):
        if inbound.get("class_name") == "__keras_tensor__":
            yield inbound["config"]["keras_history"][0]
        else:
            yield from _source_layers(list(inbound.values()))
    elif isinstance(inbound, list | tuple):
        for item in inbound:
            yield from _source_layers(item)
