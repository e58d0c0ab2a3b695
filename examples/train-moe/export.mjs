// Writes the model as GGUF in Mixtral's form (architecture llama with experts), matrices in Q8_0.
import { quantize } from 'bitloom';
import { writeGGUF } from 'bitloom/io';
import { config } from './model.mjs';

export async function exportModel(path, parameters, tokenizerMetadata, own = config) {
  const metadata = {
    'general.architecture': 'llama',
    'general.name': 'bitloom tiny Alice, a mixture of experts',
    'general.license': 'apache-2.0',
    'general.file_type': 7, // mostly Q8_0
    'general.quantization_version': 2,
    'llama.vocab_size': own.vocabulary,
    'llama.context_length': 128,
    'llama.embedding_length': own.hidden,
    'llama.block_count': own.layers,
    'llama.feed_forward_length': own.ffn,
    'llama.expert_count': own.experts,
    'llama.expert_used_count': own.topK,
    'llama.attention.head_count': own.heads,
    'llama.attention.head_count_kv': own.heads,
    'llama.attention.layer_norm_rms_epsilon': own.epsilon,
    'llama.rope.dimension_count': own.dim,
    'llama.rope.freq_base': own.base,
    ...tokenizerMetadata,
  };
  const types = {
    'llama.attention.layer_norm_rms_epsilon': 'f32',
    'llama.rope.freq_base': 'f32',
    'tokenizer.ggml.token_type': 'i32[]',
  };
  const tensors = Object.entries(parameters).map(([name, tensor]) => {
    // Norms and routers stay f32, as llama.cpp keeps them.
    const exact = tensor.shape.length === 1 || name.includes('ffn_gate_inp');
    const columns = tensor.shape.at(-1);
    const rows = tensor.data.length / columns;
    const data = () =>
      exact
        ? new Uint8Array(tensor.bytes)
        : quantize(tensor.shape.length === 2 ? tensor : flat(tensor, rows, columns), 'q8_0').bytes;
    return { name, type: exact ? 'f32' : 'q8_0', shape: [...tensor.shape], data };
  });
  await writeGGUF(path, { metadata, types, tensors });
}

function flat(tensor, rows, columns) {
  return new tensor.constructor('f32', tensor.data, [rows, columns]);
}
