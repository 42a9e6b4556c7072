"""The vocabulary of a TFLite graph: operator names, tensor types, and the layout of every operator's options.

Data only, taken from the schema that ai-edge-litert 2.3 carries (`ai_edge_litert.schema_py_generated`; a test compares
the two). Says nothing of which runtime has which operator: that is the business of `edgenn.conversion.targets`.
"""

from __future__ import annotations

_NAMES = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN
    GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM
    STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
    CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN
    TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN
    FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
    REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE
    MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG
    QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND
    SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO
    RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
    CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
    RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
    UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC
    STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
    STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL
    STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR
    STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
    STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE
    STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
    STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
    STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT
    STABLEHLO_CBRT STABLEHLO_CASE
"""
# BuiltinOperator: the position is the operator code.
OPERATORS: tuple[str, ...] = tuple(_NAMES.split())
CUSTOM = OPERATORS.index("CUSTOM")

# A custom operator of this name holds what the Edge TPU compiler made; no CPU kernel stands behind it.
EDGETPU = "edgetpu-custom-op"

# TensorType: name and bits of one element, by type code. Elements of 0 bits have no fixed size and no plain buffer.
TYPES: tuple[tuple[str, int], ...] = (
    ("float32", 32),
    ("float16", 16),
    ("int32", 32),
    ("uint8", 8),
    ("int64", 64),
    ("string", 0),
    ("bool", 8),
    ("int16", 16),
    ("complex64", 64),
    ("int8", 8),
    ("float64", 64),
    ("complex128", 128),
    ("uint64", 64),
    ("resource", 0),
    ("variant", 0),
    ("uint32", 32),
    ("uint16", 16),
    ("int4", 4),
    ("bfloat16", 16),
    ("int2", 2),
    ("uint4", 4),
    ("float8_e4m3fn", 8),
    ("float8_e5m2", 8),
)


def _layouts(text: str) -> tuple[tuple[str, str], ...]:
    return (("None", ""), *((name, layout) for name, layout in (entry.split(":") for entry in text.split())))


# BuiltinOptions and BuiltinOptions2: name and fields of each member of the union; the position is the type code.
# Fields: b 1 byte, i 4 bytes, q 8 bytes, f float32, s string, B I Q F vectors of these, g index of a subgraph,
# G vector of such, p a size that must be positive, d the same with the default 1, x no longer in use.
OPTIONS = _layouts("""
    Conv2D:bppbddb DepthwiseConv2D:bppibdd ConcatEmbeddings:iII LSHProjection:b Pool2D:bppppb SVDF:ibb RNN:bb
    FullyConnected:bbbbbB Softmax:f Concatenation:ib Add:bb L2Norm:b LocalResponseNormalization:ifff LSTM:bffbb
    ResizeBilinear:xxbb Call:g Reshape:I SkipGram:iib SpaceToDepth:p EmbeddingLookupSparse:b Mul:b Pad: Gather:ii
    BatchToSpaceND: SpaceToBatchND: Transpose: Reducer:b Sub:bb Div:b Squeeze:I SequenceRNN:bbb
    StridedSlice:iiiiib Exp: TopKV2: Split:p LogSoftmax: Cast:bb Dequantize: MaximumMinimum: ArgMax:b Less: Neg:
    PadV2: Greater: GreaterEqual: LessEqual: Select: Slice: TransposeConv:bppbb SparseToDense:b Tile: ExpandDims:
    Equal: NotEqual: Shape:b Pow: ArgMin:b FakeQuant:ffib Pack:ii LogicalOr: OneHot:i LogicalAnd: LogicalNot:
    Unpack:ii FloorDiv: Square: ZerosLike: Fill: BidirectionalSequenceLSTM:bffbbb BidirectionalSequenceRNN:bbbb
    UnidirectionalSequenceLSTM:bffbbb FloorMod: Range: ResizeNearestNeighbor:bb LeakyRelu:f SquaredDifference:
    MirrorPad:b Abs: SplitV:p Unique:b ReverseV2: AddN: GatherNd: Cos: Where: Rank: ReverseSequence:ii MatrixDiag:
    Quantize: MatrixSetDiag: HardSwish: If:gg While:gg DepthToSpace:p NonMaxSuppressionV4: NonMaxSuppressionV5:
    ScatterNd: SelectV2: Densify: SegmentSum: BatchMatMul:bbb Cumsum:bb CallOnce:g BroadcastTo: Rfft2d:
    Conv3D:bpppbddd Hashtable:ibb HashtableFind: HashtableImport: HashtableSize: VarHandle:ss ReadVariable:
    AssignVariable: Random:qq Bucketize:F Gelu:b DynamicUpdateSlice: UnsortedSegmentProd: UnsortedSegmentMax:
    UnsortedSegmentMin: UnsortedSegmentSum: ATan2: Sign: Bitcast: BitwiseXor: RightShift:
""")
OPTIONS_2 = _layouts("""
    StablehloConcatenate:q StablehloBroadcastInDim:Q StablehloSlice:QQQ StablehloConvolution:QQQQBqqQqqQqqQqqI
    StablehloCustomCall:sbsiIB StablehloReduce:Qg StablehloScatter:bQQQqbg StablehloCompare:ii
    StablehloDynamicSlice:Q StablehloPad:QQQ StablehloIota:q StablehloDotGeneral:QQQQI
    StablehloReduceWindow:QQQQQg StablehloSort:qbg StablehloWhile:gg StablehloGather:QQQqQb StablehloTranspose:Q
    Dilate: StablehloRngBitGenerator:b ReduceWindow:i StableHLOComposite:sgBbi StablehloShiftLeft: StablehloCase:G
""")

# Operators whose options do not carry their own name.
_SHARED_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "L2_POOL_2D": "Pool2D",
    "L2_NORMALIZATION": "L2Norm",
    "MEAN": "Reducer",
    "SUM": "Reducer",
    "REDUCE_PROD": "Reducer",
    "REDUCE_MAX": "Reducer",
    "REDUCE_MIN": "Reducer",
    "REDUCE_ANY": "Reducer",
    "REDUCE_ALL": "Reducer",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNN",
    "CONV_3D_TRANSPOSE": "Conv3D",
    "RANDOM_UNIFORM": "Random",
    "RANDOM_STANDARD_NORMAL": "Random",
    "MULTINOMIAL": "Random",
}
_BY_LOWER_CASE = {name.lower(): name for name, _ in (*OPTIONS, *OPTIONS_2)}
# The options an operator may carry, for those that have any.
OPTIONS_OF: dict[str, str] = {
    operator: _SHARED_OPTIONS.get(operator) or _BY_LOWER_CASE[operator.replace("_", "").lower()]
    for operator in OPERATORS
    if operator in _SHARED_OPTIONS or operator.replace("_", "").lower() in _BY_LOWER_CASE
}

# Operators that mean nothing without their options; a runtime that finds none takes zeros, or does not look.
REQUIRED_OPTIONS = frozenset(
    """
    CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV CONV_3D CONV_3D_TRANSPOSE AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D
    SPACE_TO_DEPTH DEPTH_TO_SPACE SPLIT SPLIT_V PACK UNPACK FAKE_QUANT BUCKETIZE IF WHILE CALL_ONCE VAR_HANDLE
    """.split()  # noqa: SIM905
)

# Inputs that an operator cannot do without, where they are more than one (tensorflow/compiler/mlir/lite/ir/tfl_ops.td).
# LiteRT's XNNPACK delegate looks at some of them before anything has counted them.
REQUIRED_INPUTS: dict[str, int] = {
    name: count
    for count, names in (
        (
            2,
            """
            ADD SUB MUL DIV POW MAXIMUM MINIMUM FLOOR_DIV FLOOR_MOD SQUARED_DIFFERENCE ATAN2 BITWISE_XOR RIGHT_SHIFT
            LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL NOT_EQUAL LOGICAL_AND LOGICAL_OR CONV_2D DEPTHWISE_CONV_2D
            CONV_3D FULLY_CONNECTED BATCH_MATMUL PRELU PAD MIRROR_PAD MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN
            REDUCE_ANY REDUCE_ALL RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR TRANSPOSE SPLIT GATHER GATHER_ND TILE
            EXPAND_DIMS TOPK_V2 ARG_MAX ARG_MIN FILL REVERSE_V2 REVERSE_SEQUENCE MATRIX_SET_DIAG SEGMENT_SUM CUMSUM
            BROADCAST_TO BROADCAST_ARGS EMBEDDING_LOOKUP ASSIGN_VARIABLE MULTINOMIAL RFFT2D
            """,
        ),
        (
            3,
            """
            TRANSPOSE_CONV CONV_3D_TRANSPOSE PADV2 SPLIT_V SLICE BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND SELECT SELECT_V2
            RANGE SCATTER_ND DYNAMIC_UPDATE_SLICE UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN
            UNSORTED_SEGMENT_SUM
            """,
        ),
        (4, "STRIDED_SLICE ONE_HOT SPARSE_TO_DENSE"),
    )
    for name in names.split()
}

# Operators with inputs that may be left out as -1: a bias, or parts of a recurrent cell.
OPTIONAL_INPUTS = frozenset(
    """
    CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV CONV_3D CONV_3D_TRANSPOSE FULLY_CONNECTED SVDF RNN LSTM
    UNIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_RNN UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_LSTM
    """.split()  # noqa: SIM905
)

# Inputs that hold positions or sizes, as (input, what it holds, the input it speaks of): "axes", a "permutation" of
# them, "sizes" that no dimension of the output or of that input is below, or "integers" of some other kind.
POSITIONS: dict[str, tuple[tuple[int, str, int], ...]] = {
    **dict.fromkeys(
        "MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN REVERSE_V2 CUMSUM".split(),  # noqa: SIM905
        ((1, "axes", 0),),
    ),
    **dict.fromkeys(
        "PAD PADV2 MIRROR_PAD RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR TILE BROADCAST_TO RESHAPE".split(),  # noqa: SIM905
        ((1, "sizes", 0),),
    ),
    "TRANSPOSE": ((1, "permutation", 0),),
    "TRANSPOSE_CONV": ((0, "sizes", 2),),
    "CONV_3D_TRANSPOSE": ((0, "sizes", 2),),
    "FILL": ((0, "sizes", 1),),
    "SPLIT": ((0, "axes", 1),),
    "SPLIT_V": ((1, "sizes", 0), (2, "axes", 0)),
    "BATCH_TO_SPACE_ND": ((1, "sizes", 0), (2, "sizes", 0)),
    "SPACE_TO_BATCH_ND": ((1, "sizes", 0), (2, "sizes", 0)),
    "EXPAND_DIMS": ((1, "integers", 0),),
    "GATHER": ((1, "integers", 0),),
    "SLICE": ((1, "integers", 0), (2, "integers", 0)),
    "STRIDED_SLICE": ((1, "integers", 0), (2, "integers", 0), (3, "integers", 0)),
}
