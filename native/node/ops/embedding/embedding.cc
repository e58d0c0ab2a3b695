#include "../../call.h"

namespace bitloom::node {

// embedding(table, ids, output, run)
bool read_embedding(Arguments& arguments, bl_embedding_args* args) {
  return arguments.weights("table", &args->table) && arguments.tensor("ids", &args->ids) &&
         arguments.tensor("output", &args->output);
}

}  // namespace bitloom::node
