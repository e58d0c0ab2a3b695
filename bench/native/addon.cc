// The bench's addon: time(), readRoof(), multiplyRoof(), multiplyRoofs(). See bench/native.mjs.
#include <napi.h>

#include <vector>

#include "../../native/base/error.h"
#include "../../native/node/call.h"
#include "roofs.h"
#include "threads.h"

namespace bitloom::bench {

namespace {

constexpr uint32_t kMaxValues = node::kMaxValues + 1;  // and the operator's number

// Reads calls[i] = [operator number, ...values]; false with *error set if one does not fit.
bool read_calls(Napi::Env env, const Napi::Array& list, std::vector<node::Call>* calls, bl_error* error) {
  calls->resize(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    Napi::HandleScope scope(env);
    const Napi::Value entry = list[i];
    if (!entry.IsArray() || entry.As<Napi::Array>().Length() < 1 ||
        entry.As<Napi::Array>().Length() > kMaxValues) {
      fail(error, BL_STATUS_invalid_argument, "time: calls[%u] is not [operator, ...values]", i);
      return false;
    }
    const Napi::Array values = entry.As<Napi::Array>();
    const Napi::Value op = values[0u];
    napi_value read[kMaxValues];
    for (uint32_t j = 1; j < values.Length(); ++j) read[j - 1] = Napi::Value(values[j]);
    const int32_t number = op.IsNumber() ? op.As<Napi::Number>().Int32Value() : -1;
    if (!node::read_call(env, number, read, values.Length() - 1, &(*calls)[i], error)) return false;
  }
  return !calls->empty() || (fail(error, BL_STATUS_invalid_argument, "time: calls is empty"), false);
}

// time(calls, warmUps, samples, repeats): microseconds of one call, a Float64Array of `samples`. Each
// sample is the mean over `repeats` calls; each call takes the next of `calls`, round and round.
Napi::Value time_calls(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  bl_error error{};
  std::vector<node::Call> calls;
  bool ok = info.Length() == 4 && info[0].IsArray();
  if (!ok) fail(&error, BL_STATUS_invalid_argument, "time: expected (calls, warmUps, samples, repeats)");
  if (!ok || !read_calls(env, info[0].As<Napi::Array>(), &calls, &error)) {
    node::throw_error(env, error);
    return env.Undefined();
  }
  const int64_t warm_ups = info[1].ToNumber().Int64Value();
  const int64_t samples = info[2].ToNumber().Int64Value();
  const int64_t repeats = info[3].ToNumber().Int64Value();
  Napi::Float64Array micros = Napi::Float64Array::New(env, static_cast<size_t>(samples));
  size_t next = 0;
  auto call = [&] {
    const bl_status status = node::run_call(calls[next], &error);
    next = next + 1 == calls.size() ? 0 : next + 1;
    return status == BL_STATUS_ok;
  };
  for (int64_t i = 0; ok && i < warm_ups; ++i) ok = call();
  for (int64_t i = 0; ok && i < samples; ++i) {
    const double start = now_seconds();
    for (int64_t r = 0; ok && r < repeats; ++r) ok = call();
    micros[static_cast<size_t>(i)] = (now_seconds() - start) * 1e6 / static_cast<double>(repeats);
  }
  if (!ok) {
    node::throw_error(env, error);
    return env.Undefined();
  }
  return micros;
}

bool valid_threads(int32_t threads) { return threads >= 1 && threads <= 256; }

Napi::Value speeds_array(Napi::Env env, const std::vector<double>& speeds) {
  Napi::Float64Array array = Napi::Float64Array::New(env, speeds.size());
  for (size_t i = 0; i < speeds.size(); ++i) array[i] = speeds[i];
  return array;
}

// readRoof(isa, threads, bytes, seconds, rounds): bytes per second of each round.
Napi::Value read(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int32_t isa = info[0].ToNumber().Int32Value();
  const int32_t threads = info[1].ToNumber().Int32Value();
  const double bytes = info[2].ToNumber().DoubleValue();
  const double seconds = info[3].ToNumber().DoubleValue();
  if (isa > bl_isa_available() || !valid_threads(threads) || !(bytes >= 1 && bytes <= 1e12))
    return env.Undefined();
  const int32_t rounds = info[4].ToNumber().Int32Value();
  return speeds_array(env, read_roof(isa, threads, static_cast<size_t>(bytes), seconds, rounds));
}

// multiplyRoof(index, threads, seconds, rounds): operations per second of each round.
Napi::Value multiply(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int32_t index = info[0].ToNumber().Int32Value();
  const int32_t threads = info[1].ToNumber().Int32Value();
  if (index < 0 || index >= kMultiplyRoofCount || !valid_threads(threads)) return env.Undefined();
  const MultiplyRoof& roof = kMultiplyRoofs[index];
  if (roof.isa > bl_isa_available()) return env.Undefined();
  const double seconds = info[2].ToNumber().DoubleValue();
  return speeds_array(env, multiply_roof(roof, threads, seconds, info[3].ToNumber().Int32Value()));
}

// [{ index, name, type, isa }]: the multiply roofs this machine can run, index as multiplyRoof takes it.
Napi::Value list_multiply_roofs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  for (int32_t i = 0; i < kMultiplyRoofCount; ++i) {
    if (kMultiplyRoofs[i].isa > bl_isa_available()) continue;
    Napi::Object row = Napi::Object::New(env);
    row["index"] = i;
    row["name"] = kMultiplyRoofs[i].name;
    row["type"] = kMultiplyRoofs[i].type;
    row["isa"] = kMultiplyRoofs[i].isa;
    list[list.Length()] = row;
  }
  return list;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports["time"] = Napi::Function::New<time_calls>(env, "time");
  exports["readRoof"] = Napi::Function::New<read>(env, "readRoof");
  exports["multiplyRoof"] = Napi::Function::New<multiply>(env, "multiplyRoof");
  exports["multiplyRoofs"] = Napi::Function::New<list_multiply_roofs>(env, "multiplyRoofs");
  return exports;
}

}  // namespace

}  // namespace bitloom::bench

static Napi::Object bench_init(Napi::Env env, Napi::Object exports) {
  return bitloom::bench::init(env, exports);
}
NODE_API_MODULE(bitloom_bench, bench_init)
