// Groups of 8 and 16: which form a format has. Included inside the region.

namespace {

template <int kBits, Values kValues = Values::codes>
RunForm form_of_parts(const PanelFormat& f) {
  return f.group == 16 ? run_form<Form<kBits, kValues, 2>> : run_form<Form<kBits, kValues, 4>>;
}

}  // namespace

RunForm dequant_i8_parts(const PanelFormat& f) {
  if (f.value_kind == ValueKind::table) {
    if (f.bits == 6) return form_of_parts<6, Values::small_table>(f);
    if (kTablesDiffer && f.max_value <= kSmallTable<4>) return form_of_parts<4, kSmallTableForm>(f);
    return form_of_parts<4, Values::byte_table>(f);
  }
  switch (f.bits) {
    case 2:
      return form_of_parts<2>(f);
    case 3:
      return form_of_parts<3>(f);
    case 4:
      return form_of_parts<4>(f);
    case 5:
      return form_of_parts<5>(f);
    case 6:
      return form_of_parts<6>(f);
    case 7:
      return form_of_parts<7>(f);
    default:
      return form_of_parts<8>(f);
  }
}
