#include "../../call.h"

namespace bitloom::node {

namespace {

// keys, format, pageSize, numHeads, keyDim, numPages, values, format, valueDim: what keys and values share is
// given once; values undefined: there are none.
bool read_pages(Arguments& arguments, bl_kv_pages* keys, bl_kv_pages* values) {
  bl_tensor data{};
  int32_t num_pages = 0;
  if (!(arguments.tensor("keys", &data) && arguments.integer("keyFormat", &keys->format) &&
        arguments.integer("pageSize", &keys->page_size) && arguments.integer("numHeads", &keys->num_heads) &&
        arguments.integer("keyDim", &keys->dim) && arguments.integer("numPages", &num_pages))) {
    return false;
  }
  keys->data = data.data;
  keys->bytes = data.bytes;
  keys->num_pages = num_pages;
  *values = *keys;
  if (!(arguments.optional_tensor("values", &data) && arguments.integer("valueFormat", &values->format) &&
        arguments.integer("valueDim", &values->dim))) {
    return false;
  }
  values->data = data.data;
  values->bytes = data.bytes;
  return true;
}

}  // namespace

// kvAppend(k, v, slots, ...pages, keyMean, run)
bool read_kv_append(Arguments& arguments, bl_kv_append_args* args) {
  return arguments.tensor("k", &args->k) && arguments.optional_tensor("v", &args->v) &&
         arguments.tensor("slots", &args->slots) && read_pages(arguments, &args->keys, &args->values) &&
         arguments.optional_tensor("keyMean", &args->key_mean);
}

// kvWrite(k, v, slots, keys, values, run)
bool read_kv_write(Arguments& arguments, bl_kv_write_args* args) {
  return arguments.tensor("k", &args->k) && arguments.tensor("v", &args->v) &&
         arguments.tensor("slots", &args->slots) && arguments.tensor("keys", &args->keys) &&
         arguments.tensor("values", &args->values);
}

// kvGather(slots, ...pages, keyMean, k, v, run)
bool read_kv_gather(Arguments& arguments, bl_kv_gather_args* args) {
  return arguments.tensor("slots", &args->slots) && read_pages(arguments, &args->keys, &args->values) &&
         arguments.optional_tensor("keyMean", &args->key_mean) && arguments.tensor("k", &args->k) &&
         arguments.optional_tensor("v", &args->v);
}

// nearestKeys(keys, rows, candidates, index, similarity, run)
bool read_nearest_keys(Arguments& arguments, bl_nearest_keys_args* args) {
  return arguments.tensor("keys", &args->keys) && arguments.tensor("rows", &args->rows) &&
         arguments.tensor("candidates", &args->candidates) && arguments.tensor("index", &args->index) &&
         arguments.tensor("similarity", &args->similarity);
}

}  // namespace bitloom::node
