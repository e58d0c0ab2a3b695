// Groups of 32 and more with offsets: which form a format has. Included inside the region.

namespace {

template <int kBits>
using OffsetForm = Form<kBits, Values::codes, 1, false, true>;

}  // namespace

RunForm dequant_i8_offsets(const PanelFormat& f) {
  switch (f.bits) {
    case 1:
      return run_form<OffsetForm<1>>;
    case 2:
      return run_form<OffsetForm<2>>;
    case 3:
      return run_form<OffsetForm<3>>;
    case 4:
      return run_form<OffsetForm<4>>;
    case 5:
      return run_form<OffsetForm<5>>;
    case 6:
      return run_form<OffsetForm<6>>;
    case 7:
      return run_form<OffsetForm<7>>;
    default:
      return run_form<OffsetForm<8>>;
  }
}
