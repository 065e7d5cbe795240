// Errors, and a view of bytes.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

static_assert(FLT_EVAL_METHOD == 0, "floating-point numbers must not have excess precision");
static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE 754 numbers are needed");

// Results are those of the document to the last bit only where a * b + c is rounded twice.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#define DPQED_EXACT_BEGIN
#define DPQED_EXACT_END
#elif defined(__GNUC__)
#define DPQED_EXACT_BEGIN \
  _Pragma("GCC push_options") _Pragma("GCC optimize(\"fp-contract=off\")")
#define DPQED_EXACT_END _Pragma("GCC pop_options")
#else
#define DPQED_EXACT_BEGIN
#define DPQED_EXACT_END
#endif

#if defined(__GNUC__)
#define DPQED_RESTRICT __restrict__
#define DPQED_PREFETCH(address) __builtin_prefetch(address)
#else
#define DPQED_RESTRICT
#define DPQED_PREFETCH(address) static_cast<void>(address)
#endif

namespace dpqed {

// A file that is damaged, unknown or missing. what() is one line.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what) : std::runtime_error(one_line(what)) {}

 private:
  static std::string one_line(std::string text) {
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < 32) c = ' ';
    }
    return text;
  }
};

inline void check(bool holds, const char* otherwise) {
  if (!holds) throw Error(otherwise);
}

// Bytes that belong to someone else.
struct Bytes {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;

  Bytes from(std::size_t first) const {
    check(first <= size, "damaged: data end early");
    return {data + first, size - first};
  }
  Bytes part(std::size_t first, std::size_t count) const {
    check(first <= size && count <= size - first, "damaged: data end early");
    return {data + first, count};
  }
};

}  // namespace dpqed
