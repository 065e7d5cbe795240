// What all codecs share (docs/format.md, "Codes and codec").
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "container.hpp"

namespace dpqed {

struct Array {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint8_t> bytes;

  std::size_t ndim() const { return shape.size(); }
  std::size_t size() const { return product(shape); }
  template <class T>
  T item(std::size_t i) const {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    return value;
  }
};
using Arrays = std::map<std::string, Array>;

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half >> 15) << 31;
  const std::uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) {
    const float size = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -size : size;
  }
  const std::uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) |
                             fraction << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// The items of an array of F16, F32 or I8.
inline std::vector<float> to_floats(const Array& array) {
  std::vector<float> out(array.size());
  if (array.dtype == "F16") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = half_to_float(array.item<std::uint16_t>(i));
  } else if (array.dtype == "F32") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = array.item<float>(i);
  } else if (array.dtype == "I8") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = array.item<std::int8_t>(i);
  } else {
    throw Error("damaged: an array of the codec has a wrong type");
  }
  return out;
}

inline bool all_finite(const Array& array) {
  const std::size_t n = array.size();
  bool finite = true;
  if (array.dtype == "F16") {
    for (std::size_t i = 0; i < n; ++i) finite &= (array.item<std::uint16_t>(i) & 0x7C00) != 0x7C00;
  } else if (array.dtype == "F32") {
    for (std::size_t i = 0; i < n; ++i) finite &= std::isfinite(array.item<float>(i));
  } else if (array.dtype == "F64") {
    for (std::size_t i = 0; i < n; ++i) finite &= std::isfinite(array.item<double>(i));
  }
  return finite;
}

DPQED_EXACT_BEGIN

// Divides a row by its length, as the document orders it; a row of zeros stays.
class UnitRow {
 public:
  explicit UnitRow(std::size_t dim) : dim_(dim) {
    while (width_ < dim) width_ *= 2;
    squares_.resize(width_);
  }
  void operator()(float* row) {
    float* const s = squares_.data();
    for (std::size_t i = 0; i < dim_; ++i) s[i] = row[i] * row[i];
    std::fill(s + dim_, s + width_, 0.0f);
    for (std::size_t half = width_ / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) s[i] = s[i] + s[i + half];
    }
    const float scale = 1.0f / std::max(std::sqrt(s[0]), 1.17549435e-38f);
    for (std::size_t i = 0; i < dim_; ++i) row[i] = row[i] * scale;
  }

 private:
  std::size_t dim_, width_ = 1;
  std::vector<float> squares_;
};

// Rounds a row of floats to int8, and gives what a step of it is worth.
inline float to_int8(const float* row, std::size_t dim, std::int8_t* out) {
  float top = 0;
  for (std::size_t i = 0; i < dim; ++i) top = std::max(top, std::fabs(row[i]));
  const float per_unit = top > 0 ? 127.0f / top : 0.0f;
  for (std::size_t i = 0; i < dim; ++i) {
    out[i] = static_cast<std::int8_t>(std::lround(row[i] * per_unit));
  }
  return top / 127.0f;
}

class Codec {
 public:
  std::string name;
  std::size_t dim = 0, code_size = 0;

  virtual ~Codec() = default;

  // n codes of code_size bytes to n rows of dim floats of length 1.
  void decode(const std::uint8_t* codes, std::size_t n, float* out) const {
    UnitRow unit(dim);
    for (std::size_t i = 0; i < n; ++i, codes += code_size, out += dim) {
      sum(codes, out);
      if (normalise_) unit(out);
    }
  }

  // The same in a quarter of the memory: descriptor i is scales[i] times row i of out, nearly. The
  // same bytes as another reader's are not promised.
  virtual void decode_int8(const std::uint8_t* codes, std::size_t n, std::int8_t* out,
                           float* scales) const {
    std::vector<float> row(dim);
    for (std::size_t i = 0; i < n; ++i, codes += code_size, out += dim) {
      decode(codes, 1, row.data());
      scales[i] = to_int8(row.data(), dim, out);
    }
  }

 protected:
  bool normalise_ = true;

 private:
  virtual void sum(const std::uint8_t* code, float* out) const = 0;
};

inline const Array& array_of(const Arrays& arrays, const std::string& name) {
  const auto found = arrays.find(name);
  if (found == arrays.end()) throw Error("damaged: the codec's " + name + " is missing");
  return found->second;
}

// Values as they are, or int8 times a scale (one, or one for each slice of the first axis).
inline std::vector<float> entries(const Arrays& arrays, const std::string& name,
                                  std::size_t ndim) {
  const Array& array = array_of(arrays, name);
  check(array.ndim() == ndim && array.size() > 0, "damaged: an array of the codec has a wrong shape");
  std::vector<float> values = to_floats(array);
  if (array.dtype == "I8") {
    const Array& scale = array_of(arrays, name + "_scale");
    check(scale.dtype == "F32" && scale.ndim() == 1 &&
              (scale.shape[0] == 1 || scale.shape[0] == array.shape[0]),
          "damaged: an array of the codec has a wrong shape");
    const std::size_t slice = values.size() / scale.shape[0];
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale.item<float>(i / slice);
  }
  for (const float value : values) {
    check(std::isfinite(value), "damaged: an array of the codec is not finite");
  }
  return values;
}

DPQED_EXACT_END

}  // namespace dpqed
