"""The highest version of each operator that releases of TFLite's interpreter register; tflite-runtime, then LiteRT.

Measured (2026-11-24): an interpreter was made of a file that lists one operator, for every operator and versions 1
to 20, in the wheel for x86-64 of each release named here; the registry never lost anything. Source of the meaning:
TensorFlow, lite/core/kernels/register.cc (what is registered) and lite/tools/versioning/op_version.cc (which
version a converter writes).
"""

from collections.abc import Mapping
from functools import cache

_FIRST = {
    1: """
    ADD_N ASSIGN_VARIABLE BROADCAST_ARGS CALL_ONCE CEIL COMPLEX_ABS CONV_3D CONV_3D_TRANSPOSE COS CUMSUM
    DENSIFY ELU EMBEDDING_LOOKUP_SPARSE EXP EXPAND_DIMS FLOOR FLOOR_MOD HARD_SWISH HASHTABLE
    HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_LOOKUP HASHTABLE_SIZE IF IMAG L2_POOL_2D
    LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSH_PROJECTION MATRIX_DIAG
    MATRIX_SET_DIAG NEG NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 ONE_HOT POW PRELU
    RANDOM_STANDARD_NORMAL RANGE RANK READ_VARIABLE REAL REDUCE_ALL REDUCE_ANY RELU_N1_TO_1 RESHAPE
    REVERSE_SEQUENCE RFFT2D ROUND SCATTER_ND SEGMENT_SUM SELECT_V2 SHAPE SIN SKIP_GRAM SQRT SQUARE
    UNIQUE VAR_HANDLE WHERE WHILE ZEROS_LIKE
    """,
    2: """
    ARG_MAX ARG_MIN CAST DEPTH_TO_SPACE DIV FAKE_QUANT FLOOR_DIV GREATER GREATER_EQUAL L2_NORMALIZATION
    LEAKY_RELU LESS LESS_EQUAL LOG_SOFTMAX MIRROR_PAD REDUCE_PROD RSQRT SELECT SPACE_TO_DEPTH SPLIT_V
    SQUARED_DIFFERENCE SQUEEZE SUM TILE TOPK_V2
    """,
    3: """
    AVERAGE_POOL_2D BATCH_TO_SPACE_ND BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN
    BROADCAST_TO CONCATENATION EMBEDDING_LOOKUP EQUAL FILL GATHER_ND LOGISTIC MAX_POOL_2D MEAN NOT_EQUAL
    PACK QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX SPACE_TO_BATCH_ND
    SPARSE_TO_DENSE TANH TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN
    """,
    4: """
    ABS ADD BATCH_MATMUL LSTM MAXIMUM MINIMUM PAD PADV2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SPLIT
    SVDF UNPACK
    """,
    5: """
    CONV_2D DEQUANTIZE GATHER MUL SLICE SUB TRANSPOSE
    """,
    6: """
    DEPTHWISE_CONV_2D STRIDED_SLICE
    """,
    9: """
    FULLY_CONNECTED
    """,
}
"""Of tflite-runtime 2.7: version → operators that are registered up to it."""

_CHANGES = {
    "tflite-runtime 2.8.0": "BUCKETIZE 1 CAST 3 GELU 1 MULTINOMIAL 1 RANDOM_UNIFORM 1 TILE 3 WHERE 2",
    "tflite-runtime 2.9.1": "ARG_MAX 3 ARG_MIN 3 CAST 4 CONV_2D 6 DYNAMIC_UPDATE_SLICE 1 GELU 2",
    "tflite-runtime 2.10.0": """
    ATAN2 1 RELU_0_TO_1 1 UNSORTED_SEGMENT_MAX 1 UNSORTED_SEGMENT_PROD 1 UNSORTED_SEGMENT_SUM 1
    """,
    "tflite-runtime 2.11.0": "MUL 6 SIGN 1 UNSORTED_SEGMENT_MIN 1",
    "tflite-runtime 2.12.0": """
    ABS 5 CONV_2D 7 FILL 4 SELECT 3 SIGN 2 TRANSPOSE 6 TRANSPOSE_CONV 4 UNIDIRECTIONAL_SEQUENCE_LSTM 4
    """,
    "tflite-runtime 2.13.0": """
    ADD 5 BATCH_TO_SPACE_ND 4 BITCAST 1 BITWISE_XOR 1 CAST 5 DEPTHWISE_CONV_2D 7 EQUAL 4 EXP 2 FLOOR_DIV
    3 FLOOR_MOD 2 FULLY_CONNECTED 10 GATHER 6 GATHER_ND 4 GREATER_EQUAL 3 LESS 3 MIRROR_PAD 3 MUL 7
    RIGHT_SHIFT 1 SPACE_TO_BATCH_ND 4 TOPK_V2 3
    """,
    "tflite-runtime 2.14.0": """
    CONCATENATION 4 PACK 4 RANGE 2 SELECT 4 SELECT_V2 2 SLICE 6 STRIDED_SLICE 8
    """,
    "ai-edge-litert 1.0.0": """
    CAST 6 CONV_2D 8 DEQUANTIZE 6 DILATE 1 DYNAMIC_UPDATE_SLICE 2 EMBEDDING_LOOKUP 4 FULLY_CONNECTED 13
    GATHER 7 GATHER_ND 5 LOG 2 REDUCE_WINDOW 1 RSQRT 3 STABLEHLO_ADD 1 STABLEHLO_COMPOSITE 1
    STABLEHLO_GATHER 1 STABLEHLO_MAXIMUM 1 STABLEHLO_MINIMUM 1 STABLEHLO_MULTIPLY 1 STABLEHLO_PAD 1
    STABLEHLO_REDUCE_WINDOW 1 STABLEHLO_RNG_BIT_GENERATOR 1 STABLEHLO_SCATTER 1 TRANSPOSE_CONV 5
    """,
    "ai-edge-litert 1.1.0": """
    CAST 7 DYNAMIC_UPDATE_SLICE 3 STABLEHLO_AND 1 STABLEHLO_CASE 1 STABLEHLO_SHIFT_LEFT 1
    """,
    "ai-edge-litert 1.2.0": "TRANSPOSE 7",
    "ai-edge-litert 1.3.0": "DYNAMIC_UPDATE_SLICE 4",
    "ai-edge-litert 2.0.2": "PAD 5 PADV2 5 SQRT 2",
    "ai-edge-litert 2.1.0": """
    CAST 8 DEQUANTIZE 7 EQUAL 5 FULLY_CONNECTED 14 NOT_EQUAL 4 QUANTIZE 4 SLICE 7
    """,
    "ai-edge-litert 2.1.6": """
    ADD 6 CONCATENATION 6 COS 2 DEQUANTIZE 8 DYNAMIC_UPDATE_SLICE 6 EMBEDDING_LOOKUP 5 GELU 3 MUL 8
    QUANTIZE 6 SIN 2 SLICE 8 SOFTMAX 4 TRANSPOSE 9 UNPACK 5
    """,
    "ai-edge-litert 2.2.0": """
    BROADCAST_TO 4 CAST 9 CONCATENATION 7 DEQUANTIZE 9 FILL 5 GATHER 8 GATHER_ND 6 PACK 5 PAD 6 PADV2 6
    REVERSE_V2 4 SPLIT 5 SPLIT_V 3 UNPACK 6
    """,
}
"""Release, in order → operators that are new there, or registered up to a higher version."""


@cache
def operators_of(release: str) -> Mapping[str, int]:
    """Return operator → highest version, of `tflite-runtime 2.7.0` or a release that changed something."""
    found = {name: version for version, names in _FIRST.items() for name in names.split()}
    if release == "tflite-runtime 2.7.0":
        return found
    for changed, text in _CHANGES.items():
        names, versions = text.split()[::2], text.split()[1::2]
        found |= dict(zip(names, map(int, versions), strict=True))
        if changed == release:
            return found
    raise KeyError(release)
