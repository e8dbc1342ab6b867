"""llama.cpp itself, as the package xllamacpp bundles it.

xllamacpp's own interface has no logits of all positions, but its library exports llama.cpp's C
functions. Their declarations come from llama-cpp-py-sync of the same release (whose own library
wants a newer glibc than Debian 12 has). Call only after python_env.require with REQUIREMENTS.
"""
from pathlib import Path

REQUIREMENTS = {"xllamacpp": "xllamacpp==2026.10.11549",
                "llama_cpp_py_sync": "llama-cpp-py-sync==0.11548", "gguf": "gguf==0.19.0",
                "numpy": "numpy==2.4.6"}
FFI, LIB = None, None


def load():
    """Loads the library, whose log is silenced. Returns its version."""
    global FFI, LIB
    import xllamacpp
    from llama_cpp_py_sync import _cffi_bindings

    FFI = _cffi_bindings.ffi
    FFI.cdef("""
        void ggml_quantize_init(int type);
        size_t ggml_quantize_chunk(int type, const float * src, void * dst, int64_t start,
                                   int64_t rows, int64_t cols, const float * importance);""")
    LIB = FFI.dlopen(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")).as_posix())
    if FFI.string(LIB.llama_version()) == b"":
        raise SystemExit("llama.cpp does not tell its version")
    load.silence = FFI.callback("void(enum ggml_log_level, const char *, void *)", lambda *_: None)
    LIB.llama_log_set(load.silence, FFI.NULL)
    LIB.llama_backend_init()
    return f"llama.cpp {FFI.string(LIB.llama_version()).decode()} (xllamacpp 2026.10.11549)"


class Model:
    """A file, opened to be run on `window` tokens at a time by `threads` threads.

    exact_attention: keys and values stay F32, and no fused kernel rounds them."""

    def __init__(self, path, window, threads, exact_attention=False):
        params = LIB.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = LIB.llama_model_load_from_file(str(path).encode(), params)
        if self.model == FFI.NULL:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = LIB.llama_model_get_vocab(self.model)
        self.vocab_size = LIB.llama_vocab_n_tokens(self.vocab)
        options = LIB.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = window
        options.n_outputs_max = options.n_outputs_max_per_seq = window
        options.n_threads = options.n_threads_batch = threads
        if exact_attention:
            options.type_k = options.type_v = LIB.GGML_TYPE_F32
            options.flash_attn_type = LIB.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = LIB.llama_init_from_model(self.model, options)
        if self.context == FFI.NULL:
            raise SystemExit(f"llama.cpp cannot make a context for {path}")
        self.batch = LIB.llama_batch_init(window, 0, 1)
        self.window = window

    def tokenize(self, text):
        data = text.encode()
        ids = FFI.new("llama_token[]", len(data) + 8)
        count = LIB.llama_tokenize(self.vocab, data, len(data), ids, len(data) + 8, False, False)
        if count < 0:
            raise SystemExit("llama.cpp cannot tokenize the text")
        return list(ids[0:count])

    def logits(self, tokens, first):
        """After tokens first, first + 1, ... of one window: [len(tokens) - first, vocabulary] F32.

        Valid until the next call."""
        LIB.llama_memory_clear(LIB.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i >= first
        if LIB.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama.cpp failed to run a window")
        import numpy

        count = (len(tokens) - first) * self.vocab_size
        memory = FFI.buffer(LIB.llama_get_logits(self.context), count * 4)
        return numpy.frombuffer(memory, numpy.float32).reshape(-1, self.vocab_size)


def encode_as_llamacpp(dense, template, target, importance):
    """Writes `template`, a file of quantized tensors, with what ggml's encoder makes of the same
    tensors of the F16 file `dense`: types and all else stay. importance: {tensor name: mean square
    of each input}."""
    import gguf
    import numpy

    values = {tensor.name: tensor for tensor in gguf.GGUFReader(dense).tensors}
    data = bytearray(Path(template).read_bytes())
    floats = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16}
    for tensor in gguf.GGUFReader(template).tensors:
        if tensor.tensor_type in floats:
            continue
        cols, rows = (int(size) for size in tensor.shape)
        source = numpy.ascontiguousarray(values[tensor.name].data, numpy.float32)
        weights = importance.get(tensor.name)
        if weights is not None:
            weights = numpy.ascontiguousarray(weights, numpy.float32)
        begin = int(tensor.data_offset)
        out = FFI.from_buffer(memoryview(data)[begin:begin + tensor.n_bytes])
        LIB.ggml_quantize_init(int(tensor.tensor_type))
        size = LIB.ggml_quantize_chunk(
            int(tensor.tensor_type), FFI.cast("const float *", source.ctypes.data), out, 0, rows,
            cols, FFI.NULL if weights is None else FFI.cast("const float *", weights.ctypes.data))
        if size != tensor.n_bytes:
            raise SystemExit(f"ggml wrote {size} bytes of {tensor.name}, not {tensor.n_bytes}")
    Path(target).write_bytes(data)


def importance_of(path):
    """Of an importance matrix in the GGUF form."""
    import gguf

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    means = {}
    for name, sums in tensors.items():
        if not name.endswith(".in_sum2"):
            continue
        entry = name.removesuffix(".in_sum2")
        counts = tensors[entry + ".counts"].data.reshape(-1, 1)
        means[entry] = (sums.data.reshape(len(counts), -1) / counts).reshape(-1)
    return means
