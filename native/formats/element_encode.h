// Encoding of bfp<b>, e<x>m<y>, mxint8 and nvfp4: small elements with a one-byte scale.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "block_writer.h"
#include "codebook_levels.h"
#include "scale_search.h"

namespace bitloom {

// As encode_grouped, for those formats.
void encode_elements(const bl_format_info& info, const float* values, int64_t count, int32_t method,
                     BlockWriter& block);

// The scale 2^e of values[0, count) for `levels`, whose largest positive one is in [2^top, 2^(top + 1)).
// Of all zeros: 2^-127.
Fit fit_exponent(const float* values, int64_t count, const CodebookLevels& levels, int top, int32_t method);

// The E4M3 scale for E2M1 `levels`.
Fit fit_e4m3_scale(const float* values, int64_t count, const CodebookLevels& levels, int32_t method);

}  // namespace bitloom
