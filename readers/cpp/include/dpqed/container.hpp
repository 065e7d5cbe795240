// The container: sections of bytes in a safetensors file, JSON metadata, and the hashes of both.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace dpqed {

struct Tensor {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  Bytes bytes;
};

struct Safetensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Bytes of an item of a dtype; 0 for an unknown one.
inline std::size_t item_size(std::string_view dtype) {
  if (dtype == "U8" || dtype == "I8" || dtype == "BOOL") return 1;
  if (dtype == "U16" || dtype == "I16" || dtype == "F16") return 2;
  if (dtype == "U32" || dtype == "I32" || dtype == "F32") return 4;
  if (dtype == "U64" || dtype == "I64" || dtype == "F64") return 8;
  return 0;
}

// Product of sizes; what exceeds 2^62 is 2^62.
inline std::uint64_t product(const std::vector<std::uint64_t>& sizes) {
  const std::uint64_t limit = std::uint64_t{1} << 62;
  if (std::find(sizes.begin(), sizes.end(), 0u) != sizes.end()) return 0;
  std::uint64_t total = 1;
  for (std::uint64_t n : sizes) {
    if (n > limit / total) return limit;
    total *= n;
  }
  return total;
}

inline std::vector<std::uint64_t> shape_of(const Json& value) {
  std::vector<std::uint64_t> shape;
  for (const Json& item : value.items()) shape.push_back(item.count());
  return shape;
}

// The parts of a safetensors file: they fill it without gap or overlap.
inline Safetensors read_safetensors(Bytes file) {
  check(file.size >= 8, "not a map file, or damaged: too short");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | file.data[i];
  check(length <= file.size - 8, "not a map file, or damaged: its header is longer than it");
  const std::string_view text(reinterpret_cast<const char*>(file.data) + 8, length);
  decode_utf8(text);
  const Json header = Json::parse(text);
  const Bytes data = file.from(8 + length);

  Safetensors out;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  for (const auto& [name, entry] : header.members()) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.members()) out.metadata[key] = value.text();
      continue;
    }
    Tensor tensor{entry["dtype"].text(), shape_of(entry["shape"]), {}};
    const std::vector<std::uint64_t> ends = shape_of(entry["data_offsets"]);
    check(ends.size() == 2 && ends[0] <= ends[1], "damaged: a section has an impossible place");
    const std::size_t size = item_size(tensor.dtype);
    check(size > 0, "damaged: a section has an unknown dtype");
    const std::uint64_t count = product(tensor.shape);
    check(count <= data.size && count * size == ends[1] - ends[0],
          "damaged: a section does not have its size");
    tensor.bytes = data.part(ends[0], ends[1] - ends[0]);
    places.emplace_back(ends[0], ends[1]);
    out.tensors.emplace(name, std::move(tensor));
  }
  std::sort(places.begin(), places.end());
  std::uint64_t end = 0;
  for (const auto& [first, last] : places) {
    check(first == end, "damaged: sections overlap or leave a gap");
    end = last;
  }
  check(end == data.size, "damaged: the file has another size than its sections");
  return out;
}

struct Container {
  Json metadata;
  std::string metadata_text;  // what `metadata` refers to
  std::map<std::string, Bytes> sections;

  bool has(const std::string& name) const { return sections.count(name) > 0; }
  Bytes operator[](const std::string& name) const {
    const auto found = sections.find(name);
    if (found == sections.end()) throw Error("damaged: section '" + name + "' is missing");
    return found->second;
  }
};

// A map file's metadata and sections, all hashes checked.
inline Container read_container(Bytes file) {
  Safetensors parts = read_safetensors(file);
  Container out;
  const auto found = parts.metadata.find("hloc_dpqed");
  check(found != parts.metadata.end(), "not a map file");
  out.metadata_text = std::move(found->second);
  out.metadata = Json::parse(out.metadata_text);
  [[maybe_unused]] const std::string& digest = out.metadata["sha256"].text();

  // A fuzzer would never get past hashes.
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  const std::size_t at = out.metadata_text.rfind("\"sha256\":\"" + digest + '"');
  check(digest.size() == 16 && at != std::string::npos,
        "damaged: the metadata do not have their hash");
  std::string blank = out.metadata_text;
  blank.replace(at + 10, 16, 16, '0');
  Sha256 hash;
  hash.update(blank);
  check(hash.hex(16) == digest, "damaged: the metadata do not have their hash");
#endif

  std::map<std::string, std::string> hashes;
  for (const auto& [name, value] : out.metadata["sections"].members()) {
    hashes[name] = value.text();
  }
  for (const auto& [name, tensor] : parts.tensors) {
    check(tensor.dtype == "U8" && tensor.shape.size() == 1,
          "damaged: a section is not one of bytes");
    const auto hash_of = hashes.find(name);
    check(hash_of != hashes.end(), "damaged: a section is surplus");
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    if (section_hash(name, tensor.bytes) != hash_of->second) {
      throw Error("damaged: section '" + name + "' does not have its hash");
    }
#endif
    out.sections[name] = tensor.bytes;
  }
  check(hashes.size() == out.sections.size(), "damaged: a section is missing");
  return out;
}

}  // namespace dpqed
