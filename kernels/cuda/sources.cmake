# Sources with kernels or backend methods: compiled by nvcc for the kernels library, and by the C++
# compiler for the tests (tests/support/cuda_host). runtime.cu and blas.cu have their own host twins;
# libraries.cu is nvcc's alone.
set(QUANTMILL_CUDA_SOURCES
  attention_bf16.cu
  attention_f32.cu
  attention_fp8.cu
  attention_int4.cu
  attention_int8.cu
  attention_mma.cu
  attention_mma_128.cu
  attention_mma_256.cu
  attention_mma_64.cu
  attention_mma_96.cu
  block_rounding.cu
  columns.cu
  cuda_attention.cu
  cuda_backend.cu
  cuda_factor.cu
  cuda_forward.cu
  cuda_gptq.cu
  cuda_gram.cu
  cuda_grid.cu
  cuda_kv.cu
  cuda_matmul.cu
  cuda_memory.cu
  cuda_pack.cu
  cuda_plan.cu
  cuda_refine.cu
  cuda_rounded.cu
  cuda_rows.cu
  cuda_scores.cu
  cuda_search.cu
  upload.cu)
