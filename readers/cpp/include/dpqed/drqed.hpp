// drqed: a sum of centroids, taken to the descriptor by a basis.
#pragma once

#include "codec_base.hpp"

namespace dpqed {

// `count` bits, up to 16, of a code as one little-endian number, from bit `first` on.
inline std::size_t bits_at(const std::uint8_t* code, std::size_t size, std::size_t first,
                           std::size_t count) {
  std::uint32_t word = 0;
  for (std::size_t k = 0; k < 3 && first / 8 + k < size; ++k) {
    word |= static_cast<std::uint32_t>(code[first / 8 + k]) << 8 * k;
  }
  return word >> first % 8 & ((1u << count) - 1);
}

// Sums of a few rows of int16, and their rounding to int8. Each loop is one operation on one
// type, which compilers turn into vector instructions.
template <std::size_t M>
void add_rows(const std::int16_t* const* rows, std::size_t dim, std::int16_t* DPQED_RESTRICT total) {
  for (std::size_t d = 0; d < dim; ++d) {
    std::int16_t sum = rows[0][d];
    for (std::size_t m = 1; m < M; ++m) sum = static_cast<std::int16_t>(sum + rows[m][d]);
    total[d] = sum;
  }
}

template <int kShift>
void narrow(const std::int16_t* total, std::size_t dim, std::int8_t* DPQED_RESTRICT out) {
  constexpr std::int16_t half = (1 << kShift) >> 1;
  for (std::size_t d = 0; d < dim; ++d) {
    out[d] = static_cast<std::int8_t>(static_cast<std::int16_t>(total[d] + half) >> kShift);
  }
}

// The sum of rows as int8, and what a step of it is worth where the whole has length 1.
inline float add_int16(const std::int16_t* const* rows, std::size_t count, std::size_t dim,
                       std::int16_t* DPQED_RESTRICT total, std::int8_t* DPQED_RESTRICT out) {
  switch (std::min<std::size_t>(count, 4)) {
    case 1: add_rows<1>(rows, dim, total); break;
    case 2: add_rows<2>(rows, dim, total); break;
    case 3: add_rows<3>(rows, dim, total); break;
    default: add_rows<4>(rows, dim, total);
  }
  for (std::size_t m = 4; m < count; ++m) {
    for (std::size_t d = 0; d < dim; ++d) {
      total[d] = static_cast<std::int16_t>(total[d] + rows[m][d]);
    }
  }
  std::int32_t squares = 0;
  for (std::size_t d = 0; d < dim; ++d) squares += std::int32_t{total[d]} * total[d];
  std::int16_t high = 0, low = 0;
  for (std::size_t d = 0; d < dim; ++d) {
    high = high > total[d] ? high : total[d];
    low = low < total[d] ? low : total[d];
  }
  int shift = 0;
  const int top = std::max<int>(high, -low);
  while ((top + ((1 << shift) >> 1)) >> shift > 127) ++shift;
  switch (shift) {
    case 0: narrow<0>(total, dim, out); break;
    case 1: narrow<1>(total, dim, out); break;
    case 2: narrow<2>(total, dim, out); break;
    case 3: narrow<3>(total, dim, out); break;
    case 4: narrow<4>(total, dim, out); break;
    case 5: narrow<5>(total, dim, out); break;
    case 6: narrow<6>(total, dim, out); break;
    case 7: narrow<7>(total, dim, out); break;
    default: narrow<8>(total, dim, out);  // top is at most 32000
  }
  return static_cast<float>(1 << shift) / std::sqrt(static_cast<float>(std::max(squares, 1)));
}
constexpr double kLongest = 32000;

DPQED_EXACT_BEGIN

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

  void decode_int8(const std::uint8_t* codes, std::size_t n, std::int8_t* out,
                   float* scales) const override {
    const std::int16_t* const first = int16_table().data();
    std::vector<std::int16_t> total(dim);
    std::vector<const std::int16_t*> rows(bits_.size()), next(bits_.size());
    if (n > 0) rows_of(codes, first, next.data());
    for (std::size_t i = 0; i < n; ++i, out += dim) {
      std::swap(rows, next);
      if (i + 1 < n) {
        rows_of(codes + (i + 1) * code_size, first, next.data());
        for (const std::int16_t* row : next) {  // the table is larger than fast caches
          for (std::size_t d = 0; d < dim; d += 32) DPQED_PREFETCH(row + d);
        }
      }
      scales[i] = add_int16(rows.data(), rows.size(), dim, total.data(), out);
    }
  }

 private:
  // The table in integers, of one scale such that a sum of rows, one a codebook, is shorter than
  // kLongest: then no sum overflows 16 bits, and no sum of squares 31.
  const std::vector<std::int16_t>& int16_table() const {
    const std::vector<float>& exact = table();
    std::call_once(once_int16_, [&] {
      double longest = 0;
      for (std::size_t m = 0; m < sizes_.size(); ++m) {
        double most = 0;
        for (std::size_t n = first_[m]; n < first_[m] + sizes_[m]; ++n) {
          double squares = 0;
          for (std::size_t d = 0; d < dim; ++d) {
            squares += static_cast<double>(exact[n * dim + d]) * exact[n * dim + d];
          }
          most = std::max(most, squares);
        }
        longest += std::sqrt(most);
      }
      const double rounding = std::sqrt(static_cast<double>(dim)) * static_cast<double>(sizes_.size());
      const bool usable = longest > 0 && std::isfinite(longest);
      const double scale = usable ? std::max(kLongest - rounding, 1.0) / longest : 0.0;
      int16_table_.resize(exact.size());
      for (std::size_t i = 0; i < exact.size(); ++i) {
        if (usable) int16_table_[i] = static_cast<std::int16_t>(std::round(exact[i] * scale));
      }
    });
    return int16_table_;
  }

  // The rows of a table that a code names.
  template <class T>
  void rows_of(const std::uint8_t* code, const T* first, const T** rows) const {
    std::size_t bit = 0;
    for (std::size_t m = 0; m < bits_.size(); ++m) {
      const std::size_t index = bits_at(code, code_size, bit, bits_[m]);
      bit += bits_[m];
      rows[m] = first + (first_[m] + std::min(index, sizes_[m] - 1)) * dim;
    }
  }

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
    std::vector<const float*> rows(bits_.size());
    rows_of(code, table().data(), rows.data());
    std::copy(rows[0], rows[0] + dim, out);
    for (std::size_t m = 1; m < rows.size(); ++m) {
      for (std::size_t d = 0; d < dim; ++d) out[d] = out[d] + rows[m][d];
    }
  }

  std::vector<std::size_t> bits_, sizes_, first_;
  std::size_t latent_ = 0;
  Array books_, basis_;
  std::vector<float> books_scale_, basis_scale_;
  mutable std::once_flag once_, once_int16_;
  mutable std::vector<float> table_;
  mutable std::vector<std::int16_t> int16_table_;
};

DPQED_EXACT_END

}  // namespace dpqed
