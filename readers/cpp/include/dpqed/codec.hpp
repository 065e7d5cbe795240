// Codes to descriptors (docs/format.md, "Codes and codec").
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

 protected:
  bool normalise_ = true;

 private:
  virtual void sum(const std::uint8_t* code, float* out) const = 0;
};

// Index m of a code of 4 or 8 bits an index.
inline std::size_t index_of(const std::uint8_t* code, std::size_t m, int bits) {
  return bits == 8 ? code[m] : code[m / 2] >> (m % 2 * 4) & 15;
}

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

class NoneCodec : public Codec {
 public:
  explicit NoneCodec(const Json& config) {
    dim = config["dim"].count();
    code_size = 2 * dim;
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    for (std::size_t i = 0; i < dim; ++i) {
      out[i] = half_to_float(static_cast<std::uint16_t>(code[2 * i] | code[2 * i + 1] << 8));
    }
  }
};

class SignCodec : public Codec {
 public:
  explicit SignCodec(const Json& config) {
    dim = config["dim"].count();
    code_size = (dim + 7) / 8;
    normalise_ = false;
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    const float size = 1.0f / static_cast<float>(std::sqrt(static_cast<double>(dim)));
    for (std::size_t i = 0; i < dim; ++i) out[i] = code[i / 8] >> (7 - i % 8) & 1 ? size : -size;
  }
};

// `count` bits, up to 16, of a code as one little-endian number, from bit `first` on.
inline std::size_t bits_at(const std::uint8_t* code, std::size_t size, std::size_t first,
                           std::size_t count) {
  std::uint32_t word = 0;
  for (std::size_t k = 0; k < 3 && first / 8 + k < size; ++k) {
    word |= static_cast<std::uint32_t>(code[first / 8 + k]) << 8 * k;
  }
  return word >> first % 8 & ((1u << count) - 1);
}

class DrqedCodec : public Codec {
 public:
  DrqedCodec(const Json& config, const Arrays& arrays) {
    std::size_t bits = 0, rows = 0;
    for (const Json& item : config["bits"].items()) {
      bits_.push_back(item.count());
      check(bits_.back() >= 1 && bits_.back() <= 16, "damaged: settings are not those of drqed");
      bits += bits_.back();
    }
    for (const Json& item : config["sizes"].items()) {
      const std::size_t m = sizes_.size(), size = item.count();
      check(m < bits_.size() && size >= 1 && size <= std::size_t{1} << bits_[m],
            "damaged: settings are not those of drqed");
      sizes_.push_back(size), first_.push_back(rows);
      rows += size;
    }
    check(sizes_.size() == bits_.size() && bits % 8 == 0 && bits > 0,
          "damaged: settings are not those of drqed");
    code_size = bits / 8;
    for (const auto& member : arrays) {
      check(member.first == "codebooks" || member.first == "codebooks_scale" ||
                member.first == "basis" || member.first == "basis_scale",
            "damaged: the codec has arrays that drqed lacks");
    }
    entries(arrays, "basis", 2);
    basis_ = array_of(arrays, "basis");
    dim = basis_.shape[0], latent_ = basis_.shape[1];
    if (basis_.dtype == "I8") basis_scale_ = to_floats(array_of(arrays, "basis_scale"));
    const std::size_t groups = std::gcd(latent_, std::size_t{8});
    books_ = array_of(arrays, "codebooks");
    check(books_.dtype == "I8" && books_.ndim() == 2 && books_.shape[1] == groups &&
              books_.shape[0] == rows * (latent_ / groups),
          "damaged: the codec's codebooks have a wrong shape");
    const Array& scales = array_of(arrays, "codebooks_scale");
    check(scales.dtype == "F32" && scales.ndim() == 1 && scales.shape[0] == sizes_.size() &&
              all_finite(scales),
          "damaged: the codec's codebooks have a wrong shape");
    books_scale_ = to_floats(scales);
  }

  // The table of what each centroid adds to the descriptor; made when first decoding.
  const std::vector<float>& table() const {
    std::call_once(once_, [this] {
      if (basis_.dtype == "I8" && latent_ <= 1024) {
        make_table<float>();  // sums of integers below 2^24: exact
      } else {
        make_table<double>();
      }
    });
    return table_;
  }

 private:
  template <class Real>
  void make_table() const {
    const std::vector<float> basis = to_floats(basis_), books = to_floats(books_);
    std::vector<Real> turned(latent_ * dim), total(dim);
    for (std::size_t d = 0; d < dim; ++d) {
      for (std::size_t k = 0; k < latent_; ++k) turned[k * dim + d] = basis[d * latent_ + k];
    }
    const std::size_t groups = std::gcd(latent_, std::size_t{8}), long_ = latent_ / groups;
    table_.resize((first_.back() + sizes_.back()) * dim);
    float* out = table_.data();
    std::vector<float> scale(dim);
    for (std::size_t m = 0; m < sizes_.size(); ++m) {
      for (std::size_t d = 0; d < dim; ++d) {
        const float own = basis_scale_.empty() ? 1.0f
                                               : basis_scale_[basis_scale_.size() == 1 ? 0 : d];
        scale[d] = books_scale_[m] * own;
      }
      for (std::size_t n = first_[m]; n < first_[m] + sizes_[m]; ++n, out += dim) {
        std::fill(total.begin(), total.end(), Real{0});
        for (std::size_t k = 0; k < latent_; ++k) {
          const Real c = books[(n * long_ + k % long_) * groups + k / long_];
          const Real* const row = turned.data() + k * dim;
          for (std::size_t d = 0; d < dim; ++d) total[d] += c * row[d];
        }
        for (std::size_t d = 0; d < dim; ++d) out[d] = static_cast<float>(total[d]) * scale[d];
      }
    }
  }

  void sum(const std::uint8_t* code, float* out) const override {
    const float* const rows = table().data();
    std::size_t bit = 0;
    for (std::size_t m = 0; m < bits_.size(); ++m) {
      const std::size_t index = bits_at(code, code_size, bit, bits_[m]);
      bit += bits_[m];
      const float* const row = rows + (first_[m] + std::min(index, sizes_[m] - 1)) * dim;
      if (m == 0) {
        std::copy(row, row + dim, out);
      } else {
        for (std::size_t d = 0; d < dim; ++d) out[d] = out[d] + row[d];
      }
    }
  }

  std::vector<std::size_t> bits_, sizes_, first_;
  std::size_t latent_ = 0;
  Array books_, basis_;
  std::vector<float> books_scale_, basis_scale_;
  mutable std::once_flag once_;
  mutable std::vector<float> table_;
};

// nested: every head of a code is a code; the index that it cuts names a mean of centroids.
class NestedCodec : public Codec {
 public:
  // code_bytes: of a head of the codes, 0 for whole ones.
  NestedCodec(const Json& config, const Arrays& arrays, std::size_t code_bytes) {
    const std::size_t longest = 32;
    std::size_t total = 0, index = 0;
    code_size = config["code_size"].count();
    basis_ = entries(arrays, "basis", 2);
    dim = array_of(arrays, "basis").shape[0], latent_ = array_of(arrays, "basis").shape[1];
    std::vector<std::string> known{"basis", "basis_scale"};
    const std::vector<Json>& bits = config["bits"].items();
    for (const Json& item : bits) {
      const std::uint64_t width = item.count();
      check(width >= 1 && width <= 16, "damaged: settings are not those of nested");
      total += width;
    }
    check(code_size >= 1 && code_size <= longest && 8 * code_size <= total &&
              total <= 8 * longest && total % 8 == 0,
          "damaged: settings are not those of nested");
    if (code_bytes > 0) {
      check(code_bytes <= total / 8, "damaged: its codes are longer than those of its codec");
      code_size = code_bytes;
    }
    std::size_t left = 8 * code_size;
    for (const Json& item : bits) {
      const std::string book_name = "book" + std::to_string(index++);
      known.insert(known.end(), {book_name, book_name + "_scale"});
      const std::vector<float> book = entries(arrays, book_name, 2);
      const std::size_t width = item.count(), used = std::min(width, left);
      const std::vector<std::uint64_t>& shape = array_of(arrays, book_name).shape;
      check(shape[0] == std::size_t{1} << width && shape[1] == latent_,
            "damaged: a codebook has a wrong shape");
      left -= used;
      if (used == 0) continue;
      const std::size_t rows = std::size_t{1} << used, parts = shape[0] / rows;
      std::vector<double> head(rows * latent_);
      for (std::size_t i = 0; i < book.size(); ++i) head[i % head.size()] += book[i];
      for (double& value : head) value /= static_cast<double>(parts);
      books_.push_back(std::move(head)), bits_.push_back(used);
    }
    for (const auto& member : arrays) {
      check(std::find(known.begin(), known.end(), member.first) != known.end(),
            "damaged: the codec has arrays that nested lacks");
    }
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    std::vector<double> z(latent_);
    std::size_t bit = 0;
    for (std::size_t m = 0; m < books_.size(); ++m) {
      const std::size_t index = bits_at(code, code_size, bit, bits_[m]);
      for (std::size_t k = 0; k < latent_; ++k) z[k] += books_[m][index * latent_ + k];
      bit += bits_[m];
    }
    for (std::size_t d = 0; d < dim; ++d) {
      double total = 0;
      for (std::size_t k = 0; k < latent_; ++k) total += z[k] * basis_[d * latent_ + k];
      out[d] = static_cast<float>(total);
    }
  }

  std::size_t latent_ = 0;
  std::vector<float> basis_;
  std::vector<std::vector<double>> books_;
  std::vector<std::size_t> bits_;
};

inline int stored_bits(const Json& config) {
  const std::uint64_t bits = config["bits"].count();
  check(bits == 4 || bits == 8, "damaged: a codec's settings are impossible");
  return static_cast<int>(bits);
}

// pq and opq: a centroid of each codebook, one beside the other; opq then turns them.
class ProductCodec : public Codec {
 public:
  ProductCodec(const Json& config, const Arrays& arrays, bool turned)
      : bits_(config.find("bits") ? stored_bits(config) : 8),
        centroids_(entries(arrays, "centroids", 3)) {
    const std::vector<std::uint64_t>& shape = array_of(arrays, "centroids").shape;
    books_ = shape[0], size_ = shape[1], sub_ = shape[2];
    check(size_ <= std::size_t{1} << bits_ && books_ * bits_ % 8 == 0,
          "damaged: the codec's centroids have a wrong shape");
    dim = books_ * sub_, code_size = books_ * bits_ / 8;
    if (!turned) return;
    rotation_ = entries(arrays, "rotation", 2);
    const std::vector<std::uint64_t>& square = array_of(arrays, "rotation").shape;
    check(square[0] == dim && square[1] == dim,
          "damaged: the codec's rotation has a wrong shape");
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    for (std::size_t m = 0; m < books_; ++m) {
      const std::size_t index = index_of(code, m, bits_);
      for (std::size_t k = 0; k < sub_; ++k) {
        // An index beyond the centroids is one far away.
        out[m * sub_ + k] = index < size_ ? centroids_[(m * size_ + index) * sub_ + k] : 1e4f;
      }
    }
    if (rotation_.empty()) return;
    UnitRow unit(dim);
    unit(out);
    std::vector<double> total(dim);
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t j = 0; j < dim; ++j) {
        total[j] += static_cast<double>(out[i]) * rotation_[i * dim + j];
      }
    }
    for (std::size_t j = 0; j < dim; ++j) out[j] = static_cast<float>(total[j]);
  }

  int bits_;
  std::vector<float> centroids_, rotation_;
  std::size_t books_, size_, sub_;
};

// rq, lsq and prq: the sum of a centroid of each codebook, in one sub-space after the other.
class AdditiveCodec : public Codec {
 public:
  AdditiveCodec(const Json& config, const Arrays& arrays)
      : bits_(stored_bits(config)), books_(entries(arrays, "codebooks", 3)) {
    const std::vector<std::uint64_t>& shape = array_of(arrays, "codebooks").shape;
    const std::uint64_t splits = config["splits"].count();
    count_ = shape[0], size_ = shape[1], sub_ = shape[2];
    check(splits >= 1 && count_ % splits == 0 && size_ <= std::size_t{1} << bits_ &&
              count_ * bits_ % 8 == 0,
          "damaged: the codec's codebooks have a wrong shape");
    each_ = count_ / splits;
    dim = sub_ * splits, code_size = count_ * bits_ / 8;
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    std::fill(out, out + dim, 0.0f);
    for (std::size_t m = 0; m < count_; ++m) {
      const std::size_t index = std::min(index_of(code, m, bits_), size_ - 1);
      const float* const row = books_.data() + (m * size_ + index) * sub_;
      float* const part = out + m / each_ * sub_;
      for (std::size_t k = 0; k < sub_; ++k) part[k] = part[k] + row[k];
    }
  }

  int bits_;
  std::vector<float> books_;
  std::size_t count_, size_, sub_, each_;
};

// sq8, and pca, whose numbers lie on axes.
class ScalarCodec : public Codec {
 public:
  ScalarCodec(const Json& config, const Arrays& arrays, bool axes)
      : bits_(axes ? stored_bits(config) : 8), ranges_(entries(arrays, "ranges", 2)) {
    const std::vector<std::uint64_t>& shape = array_of(arrays, "ranges").shape;
    count_ = shape[1], dim = count_;
    if (axes) {
      basis_ = entries(arrays, "basis", 2);
      dim = array_of(arrays, "basis").shape[0];
      check(array_of(arrays, "basis").shape[1] == count_,
            "damaged: the codec's ranges have a wrong shape");
    }
    check(shape[0] == 2, "damaged: the codec's ranges have a wrong shape");
    code_size = (count_ * bits_ + 7) / 8;
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    std::vector<float> x(count_);
    for (std::size_t k = 0; k < count_; ++k) {
      const float share = (static_cast<float>(index_of(code, k, bits_)) + 0.5f) /
                          static_cast<float>((1 << bits_) - 1);
      x[k] = ranges_[k] + share * ranges_[count_ + k];
    }
    for (std::size_t d = 0; d < dim; ++d) {
      double total = 0;
      for (std::size_t k = 0; !basis_.empty() && k < count_; ++k) {
        total += static_cast<double>(basis_[d * count_ + k]) * x[k];
      }
      out[d] = basis_.empty() ? x[d] : static_cast<float>(total);
    }
  }

  int bits_;
  std::vector<float> ranges_, basis_;
  std::size_t count_;
};

// dpqed: product codebooks, and a decoder that corrects what they say.
class DpqedCodec : public Codec {
 public:
  DpqedCodec(const Json& config, const Arrays& arrays) : bits_(stored_bits(config)) {
    const Array& books = array_of(arrays, "codebooks");
    check(books.ndim() == 3 && books.size() > 0 && books.shape[1] <= std::size_t{1} << bits_ &&
              books.shape[0] * bits_ % 8 == 0,
          "damaged: the codec's codebooks have a wrong shape");
    books_ = to_floats(books);
    count_ = books.shape[0], size_ = books.shape[1], sub_ = books.shape[2];
    dim = count_ * sub_, code_size = count_ * bits_ / 8;
    const std::string& kind = config["decoder"].text();
    check(kind == "none" || kind == "linear" || kind == "mlp",
          "damaged: settings are not those of dpqed");
    std::size_t inputs = dim;
    for (int i = 0; i < (kind == "mlp" ? 2 : kind == "linear" ? 1 : 0); ++i) {
      const Array& weight = array_of(arrays, "decoder." + std::to_string(i) + ".weight");
      const Array& bias = array_of(arrays, "decoder." + std::to_string(i) + ".bias");
      check(bias.ndim() == 1 && weight.ndim() == 2 && weight.shape[0] == bias.shape[0] &&
                weight.shape[1] == inputs && bias.size() > 0,
            "damaged: the codec's decoder has a wrong shape");
      inputs = bias.shape[0];
      layers_.emplace_back(to_floats(weight), to_floats(bias));
    }
    check(inputs == dim, "damaged: the codec's decoder has a wrong shape");
  }

 private:
  void sum(const std::uint8_t* code, float* out) const override {
    std::vector<double> x(dim), y;
    for (std::size_t m = 0; m < count_; ++m) {
      const std::size_t index = std::min(index_of(code, m, bits_), size_ - 1);
      for (std::size_t k = 0; k < sub_; ++k) {
        x[m * sub_ + k] = books_[(m * size_ + index) * sub_ + k];
      }
    }
    y = x;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto& [weight, bias] = layers_[i];
      std::vector<double> z(bias.begin(), bias.end());
      for (std::size_t r = 0; r < z.size(); ++r) {
        for (std::size_t c = 0; c < y.size(); ++c) {
          z[r] += weight[r * y.size() + c] * (i > 0 ? std::max(y[c], 0.0) : y[c]);
        }
      }
      y = std::move(z);
    }
    for (std::size_t d = 0; d < dim; ++d) {
      out[d] = static_cast<float>(layers_.empty() ? x[d] : x[d] + y[d]);
    }
  }

  int bits_;
  std::vector<float> books_;
  std::size_t count_, size_, sub_;
  std::vector<std::pair<std::vector<float>, std::vector<float>>> layers_;
};

// rabitq: its rotation is drawn by numpy's generator, which this reader does not have.
class RabitqCodec : public Codec {
 public:
  RabitqCodec(const Json& config, const Arrays& arrays) {
    check(config["seed"].kind() == Json::Kind::number,
          "damaged: settings are not those of rabitq");
    dim = entries(arrays, "mean", 1).size();
    code_size = (dim + 7) / 8 + 8;
  }

 private:
  void sum(const std::uint8_t*, float*) const override {
    throw Error("codes of rabitq cannot be decoded by this reader");
  }
};

DPQED_EXACT_END

// The codec of a name, its settings and its tensors. head: bytes of a code where it has codes of
// several sizes and the settings do not tell it; else 0.
inline std::shared_ptr<const Codec> make_codec(const std::string& name, const Json& config,
                                               const Arrays& arrays, std::size_t head = 0) {
  for (const auto& member : arrays) {
    check(all_finite(member.second), "damaged: an array of the codec is not finite");
  }
  std::shared_ptr<Codec> codec;
  if (name == "none") {
    codec = std::make_shared<NoneCodec>(config);
  } else if (name == "sign") {
    codec = std::make_shared<SignCodec>(config);
  } else if (name == "drqed") {
    codec = std::make_shared<DrqedCodec>(config, arrays);
  } else if (name == "pq" || name == "opq") {
    codec = std::make_shared<ProductCodec>(config, arrays, name == "opq");
  } else if (name == "rq" || name == "lsq" || name == "prq") {
    codec = std::make_shared<AdditiveCodec>(config, arrays);
  } else if (name == "sq8" || name == "pca") {
    codec = std::make_shared<ScalarCodec>(config, arrays, name == "pca");
  } else if (name == "dpqed") {
    codec = std::make_shared<DpqedCodec>(config, arrays);
  } else if (name == "nested") {
    codec = std::make_shared<NestedCodec>(config, arrays, head);
  } else if (name == "rabitq") {
    codec = std::make_shared<RabitqCodec>(config, arrays);
  } else {
    throw Error("codec '" + name.substr(0, 40) + "' is unknown to this reader");
  }
  codec->name = name;
  check(codec->dim >= 1 && config["dim"].natural() == codec->dim &&
            (config["code_size"].natural() == codec->code_size || (head > 0 && name == "nested")),
        "damaged: the sizes of the codec are not those of its settings");
  return codec;
}

// The codec that metadata and a section of its tensors describe.
inline std::shared_ptr<const Codec> read_codec(Bytes section, const Json& spec) {
  std::map<std::string, ArraySpec> sorted;
  for (const auto& [name, value] : spec["tensors"].members()) sorted[name] = ArraySpec::of(value);
  std::vector<ArraySpec> specs;
  for (const auto& member : sorted) specs.push_back(member.second);
  std::vector<std::vector<std::uint8_t>> contents = read_arrays(section, specs);
  Arrays arrays;
  std::size_t i = 0;
  for (const auto& [name, array] : sorted) {
    arrays[name] = {array.dtype, array.shape, std::move(contents[i++])};
  }
  return make_codec(spec["name"].text(), spec["config"], arrays);
}

// The codec of a codec file that must have this hash, for codes of `code_bytes` bytes.
inline std::shared_ptr<const Codec> read_codec_file(Bytes file, const std::string& expected,
                                                    std::size_t code_bytes) {
  const Safetensors parts = read_safetensors(file);
  const auto found = parts.metadata.find("hloc_dpqed_codec");
  check(found != parts.metadata.end(), "not a codec file of hloc_dpqed");
  const Json header = Json::parse(found->second);
  Sha256 digest;
  digest.update("[" + header["name"].dump() + ", " + header["config"].dump() + "]");
  Arrays arrays;
  static const std::map<std::string, std::string> numpy{
      {"F16", "<f2"}, {"F32", "<f4"}, {"F64", "<f8"}, {"I8", "|i1"}, {"U8", "|u1"}, {"I16", "<i2"},
      {"U16", "<u2"}, {"I32", "<i4"}, {"U32", "<u4"}, {"I64", "<i8"}, {"U64", "<u8"},
      {"BOOL", "|b1"}};
  for (const auto& [name, tensor] : parts.tensors) {
    std::string shape;
    for (const std::uint64_t n : tensor.shape) {
      shape += (shape.empty() ? "" : ", ") + std::to_string(n);
    }
    digest.update(name + " " + numpy.at(tensor.dtype) + " (" + shape +
                  (tensor.shape.size() == 1 ? ",)\n" : ")\n"));
    digest.update(tensor.bytes.data, tensor.bytes.size);
    arrays[name] = {tensor.dtype, tensor.shape,
                    {tensor.bytes.data, tensor.bytes.data + tensor.bytes.size}};
  }
  const std::string actual = digest.hex();
  check(header["hash"].is_text(actual), "the codec file's content does not have its hash");
  check(actual == expected, "the codec file is of another codec than the map's");
  return make_codec(header["name"].text(), header["config"], arrays, code_bytes);
}

}  // namespace dpqed
