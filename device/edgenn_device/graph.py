"""A model's structure as values: tensors, operators and how they hang together. Reads and checks nothing itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
      name: as the converter wrote it.
      shape: sizes of the dimensions; () for a scalar.
      dtype: NumPy's name where NumPy has one ("uint8", "float32"), else TFLite's in lower case ("int4", "string").
      scales, zero_points: real = scale * (value - zero_point); one each for the tensor, one each per index of
        `quantized_dimension`, or none.
      constant: its values are in the file.
      bytes: size of its values in memory; 0 where it is not known beforehand (strings, resources).
      signature: the shape with -1 where a dimension may change from run to run; () when none may.
      variable: it keeps its values between runs.
      offset: where the values of a constant begin in the file, else 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant: bool
    bytes: int
    quantized_dimension: int = 0
    signature: tuple[int, ...] = ()
    variable: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of the graph.

    Attributes:
      name: TFLite's name ("CONV_2D"), or the code of a custom operator.
      version: the operator's version, which a runtime must have.
      custom: it is a custom operator.
      inputs, outputs: indices into `Graph.tensors`; -1 is an optional input left out.
      options: the fields of its options in the order of the schema, None for one that is not a number.
    """

    name: str
    version: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[int | float | None, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a model, and what the file says of itself.

    Attributes:
      inputs, outputs: indices into `tensors`.
      tensors, operators: in the file's order, which for operators is the order they run in.
      description: free text.
      metadata: named blobs ("TFLITE_METADATA", "min_runtime_version", ...).
      size: bytes of the flatbuffer.
      subgraphs: how many there are; more than one only with control flow.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    description: str
    metadata: dict[str, bytes]
    size: int
    subgraphs: int
