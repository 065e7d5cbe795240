// Codes to descriptors (docs/format.md, "Codes and codec").
#pragma once

#include "codec_base.hpp"
#include "drqed.hpp"

namespace dpqed {

DPQED_EXACT_BEGIN

// Index m of a code of 4 or 8 bits an index.
inline std::size_t index_of(const std::uint8_t* code, std::size_t m, int bits) {
  return bits == 8 ? code[m] : code[m / 2] >> (m % 2 * 4) & 15;
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
    config["seed"].count();
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
