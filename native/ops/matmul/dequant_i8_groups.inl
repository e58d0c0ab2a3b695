// Groups of 32 and more without offsets: which form a format has. Included inside the region.

RunForm dequant_i8_groups(const PanelFormat& f) {
  if (f.value_kind == ValueKind::table) {
    if (f.bits == 6) return run_form<Form<6, Values::small_table>>;
    if (kTablesDiffer && f.max_value <= kSmallTable<4>) return run_form<Form<4, kSmallTableForm>>;
    return run_form<Form<4, Values::byte_table>>;
  }
  switch (f.bits) {
    case 1:
      return run_form<Form<1>>;
    case 2:
      return run_form<Form<2>>;
    case 3:
      return run_form<Form<3>>;
    case 4:
      return run_form<Form<4>>;
    case 5:
      return run_form<Form<5>>;
    case 6:
      return run_form<Form<6>>;
    case 7:
      return run_form<Form<7>>;
    default:
      return run_form<Form<8>>;
  }
}
