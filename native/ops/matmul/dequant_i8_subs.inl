// The K types: which form a format has. Included inside the region.

namespace {

template <int kBits, int kParts, bool kOffset>
using SubForm = Form<kBits, Values::codes, kParts, true, kOffset>;

}  // namespace

RunForm dequant_i8_subs(const PanelFormat& f) {
  switch (f.bits) {
    case 2:
      return run_form<SubForm<2, 2, true>>;  // q2_k
    case 3:
      return run_form<SubForm<3, 2, false>>;  // q3_k
    case 4:
      return run_form<SubForm<4, 1, true>>;  // q4_k
    case 5:
      return run_form<SubForm<5, 1, true>>;  // q5_k
    default:
      return run_form<SubForm<6, 2, false>>;  // q6_k
  }
}
