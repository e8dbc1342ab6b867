"""Decoding of GPTQ and AWQ layers by GPTQModel's and AutoAWQ's own code, taken from their sources."""
from types import SimpleNamespace

import reader_source
import torch

GPTQMODEL = "gptqmodel==7.7.0"
AUTOAWQ = "autoawq==0.2.9"

GPTQ = reader_source.functions(
    GPTQMODEL, "gptqmodel/nn_modules/qlinear/__init__.py",
    ["_torch_shift_factor", "_torch_right_shift", "_torch_left_shift", "_wf_device",
     "_dequantize_from_codes"], {"t": torch})
GPTQ_METHODS = {
    name: reader_source.functions(GPTQMODEL, "gptqmodel/nn_modules/qlinear/__init__.py", [name],
                                  GPTQ)[name]
    for name in ("_init_wf_unsqueeze_buffers", "_wf_device", "_dequantize_from_codes",
                 "dequantize_weight")}
AWQ = reader_source.functions(
    AUTOAWQ, "awq/utils/packing_utils.py", ["unpack_awq", "reverse_awq_order", "dequantize_gemm"],
    {"torch": torch, "AWQ_REVERSE_ORDER": [0, 4, 1, 5, 2, 6, 3, 7]})


class GptqLayer(SimpleNamespace):
    """What the methods of GPTQModel's packed layer read of it."""

    def __getattr__(self, name):
        if name in GPTQ_METHODS:
            return lambda *args, **kwargs: GPTQ_METHODS[name](self, *args, **kwargs)
        raise AttributeError(name)

    def register_buffer(self, name, value, persistent):
        self._buffers[name] = value
        setattr(self, name, value)


def decode_gptq(tensors, module, config):
    part = {name: tensors[f"{module}.{name}"] for name in ("qweight", "qzeros", "scales", "g_idx")}
    bits = config["bits"]
    if config["checkpoint_format"] == "gptq":  # as GPTQModel converts it: field by field for 3 bits
        if bits == 3:
            part["qzeros"] = shift_three_bits(part["qzeros"])
        else:
            ones = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}[bits]
            part["qzeros"] = part["qzeros"] + ones
    layer = GptqLayer(bits=bits, planar=False, enable_wf_unsqueeze=True, pack_dtype_bits=32,
                      pack_factor=32 // bits, maxq=2**bits - 1, dequant_dtype=torch.int32,
                      in_features=len(part["g_idx"]), _buffers={}, **part)
    layer.scales = layer.scales.float()
    return layer.dequantize_weight().T


def shift_three_bits(words):
    """Each 3-bit field plus one, modulo 8."""
    result = torch.zeros_like(words.long())
    unsigned = words.long() & 0xFFFFFFFF
    count = words.shape[1] * 32 // 3
    for field in range(count):
        word, bit = divmod(3 * field, 32)
        value = unsigned[:, word] >> bit
        if bit > 29:
            value |= unsigned[:, word + 1] << (32 - bit)
        value = ((value & 7) + 1) & 7
        result[:, word] |= (value << bit) & 0xFFFFFFFF
        if bit > 29:
            result[:, word + 1] |= value >> (32 - bit)
    return torch.where(result >= 2**31, result - 2**32, result).int()


def decode_awq(tensors, module, config):
    part = {name: tensors[f"{module}.{name}"] for name in ("qweight", "qzeros", "scales")}
    return AWQ["dequantize_gemm"](part["qweight"], part["qzeros"], part["scales"].float(),
                                  config["bits"], config["group_size"]).T
