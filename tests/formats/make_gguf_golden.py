#!/usr/bin/env python3
"""golden/gguf_blocks.gguf and golden/gguf_imatrix.gguf, by the ecosystem's own library.

Needs: pip install gguf numpy. The output depends on the seed alone. gguf_blocks.gguf holds for each
type that we decode a tensor of random blocks (name: the type) and one of the values that the
library's dequantize gives ("values.<type>"), and one metadata entry of every type.
"""

import pathlib

import gguf
import numpy
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

GOLDEN = pathlib.Path(__file__).parent / "golden"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",
         "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]
ELEMENTS = 512


def random_blocks(name, rng):
    """Random bytes, block by block, until the values are finite; and the values."""
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = []
    while len(blocks) * elements < ELEMENTS:
        block = rng.integers(0, 256, size, dtype=numpy.uint8)
        with numpy.errstate(all="ignore"):
            values = gguf.dequantize(block, kind)
        if numpy.isfinite(values).all():
            blocks.append(block)
    data = numpy.concatenate(blocks)
    return data, gguf.dequantize(data, kind).astype(numpy.float32).reshape(-1)


def add_metadata(writer):
    writer.add_key_value("u8", 200, GGUFValueType.UINT8)
    writer.add_key_value("i8", -100, GGUFValueType.INT8)
    writer.add_key_value("u16", 60000, GGUFValueType.UINT16)
    writer.add_key_value("i16", -30000, GGUFValueType.INT16)
    writer.add_key_value("u32", 4000000000, GGUFValueType.UINT32)
    writer.add_key_value("i32", -2000000000, GGUFValueType.INT32)
    writer.add_key_value("f32", 0.25, GGUFValueType.FLOAT32)
    writer.add_key_value("bool", True, GGUFValueType.BOOL)
    writer.add_key_value("string", "\u00e9t\u00e9", GGUFValueType.STRING)
    writer.add_key_value("u64", 2**63 + 1, GGUFValueType.UINT64)
    writer.add_key_value("i64", -(2**62), GGUFValueType.INT64)
    writer.add_key_value("f64", 1e300, GGUFValueType.FLOAT64)
    writer.add_array("strings", ["a", "bc", ""])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, -1.5])
    writer.add_array("bools", [True, False])


def write_blocks(path):
    rng = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "test")
    add_metadata(writer)
    for name in TYPES:
        data, values = random_blocks(name, rng)
        kind = GGMLQuantizationType[name]
        if name in ("F32", "F16"):
            writer.add_tensor(name, data.view(numpy.float32 if name == "F32" else numpy.float16))
        else:
            writer.add_tensor(name, data.reshape(1, -1), raw_dtype=kind)
        writer.add_tensor(f"values.{name}", values)
    finish(writer)


def write_imatrix(path):
    rng = numpy.random.default_rng(2)
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].clear()  # an importance matrix has no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["a.txt", "b.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, matrices, cols in [("blk.0.attn_q.weight", 1, 4), ("blk.0.ffn_up_exps.weight", 3, 2)]:
        sums = rng.integers(0, 100, (matrices, cols)).astype(numpy.float32)
        counts = numpy.arange(matrices, dtype=numpy.float32).reshape(matrices, 1) * 2 + 2
        if matrices > 1:
            counts[-1] = 0  # an expert that saw nothing
        writer.add_tensor(f"{name}.in_sum2", sums if matrices > 1 else sums[0])
        writer.add_tensor(f"{name}.counts", counts if matrices > 1 else counts[0])
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write_blocks(GOLDEN / "gguf_blocks.gguf")
write_imatrix(GOLDEN / "gguf_imatrix.gguf")
