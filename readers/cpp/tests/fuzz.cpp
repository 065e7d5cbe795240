// Fuzzes the reader. A section or the metadata is changed within an intact container; hashes are
// not checked (FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION), or every change would end at one.
//
// libFuzzer:  clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -I include
//             tests/fuzz.cpp -o fuzz && ./fuzz -runs=1000000 -max_len=20000 CORPUS
// Without it: g++ -std=c++17 -O1 -g -fsanitize=address,undefined -DDPQED_FUZZ_DRIVER -I include
//             tests/fuzz.cpp -o fuzz && ./fuzz RUNS SEED FILE...

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#endif
#include "dpqed/dpqed.hpp"

namespace {

using Content = std::vector<std::uint8_t>;

struct Parts {
  std::string metadata;
  std::vector<std::pair<std::string, Content>> sections;
};

Parts split(dpqed::Bytes file) {
  const dpqed::Safetensors read = dpqed::read_safetensors(file);
  Parts parts{read.metadata.at("hloc_dpqed"), {}};
  for (const auto& [name, tensor] : read.tensors) {
    parts.sections.emplace_back(
        name, Content(tensor.bytes.data, tensor.bytes.data + tensor.bytes.size));
  }
  return parts;
}

Content join(const Parts& parts) {
  std::string header = "{\"__metadata__\":{\"hloc_dpqed\":" + dpqed::json_quote(parts.metadata) + "}";
  Content data;
  for (const auto& [name, content] : parts.sections) {
    header += "," + dpqed::json_quote(name) + ":{\"dtype\":\"U8\",\"shape\":[" +
              std::to_string(content.size()) + "],\"data_offsets\":[" +
              std::to_string(data.size()) + "," + std::to_string(data.size() + content.size()) +
              "]}";
    data.insert(data.end(), content.begin(), content.end());
  }
  header += "}";
  Content file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<std::uint8_t>(header.size() >> 8 * i));
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

// Whether the file is a map; reads and uses all of it.
bool use(dpqed::Bytes file) {
  try {
    const dpqed::Map map = dpqed::parse_map(file);
    if (map.local.codec->name == "rabitq" || map.local.rows * map.local.codec->dim > 1u << 20) {
      return true;
    }
    const std::vector<float> rows = map.local.decode();
    for (std::size_t i = 0; i < std::min<std::size_t>(map.num_images, 2); ++i) {
      const std::size_t some = std::min<std::size_t>(map.local.rows, 4);
      for (const dpqed::Match& match : dpqed::match_image(map, i, rows.data(), some)) {
        if (match.query >= some || match.row >= map.num_points) std::abort();
      }
    }
    if (map.global) map.global->decode();
    return true;
  } catch (const dpqed::Error&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  use({data, size});
  return 0;
}

#ifndef DPQED_FUZZ_DRIVER

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t limit);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t limit, unsigned seed) {
  std::minstd_rand random(seed + 1);
  try {
    Parts parts = split({data, size});
    const auto change = [&](Content content) {
      const std::size_t before = content.size();
      content.resize(before + 64);
      content.resize(LLVMFuzzerMutate(content.data(), before, content.size()));
      return content;
    };
    if (random() % 4 == 0) {
      const Content text = change({parts.metadata.begin(), parts.metadata.end()});
      parts.metadata.clear();
      for (const std::uint8_t c : text) parts.metadata += static_cast<char>(c & 127);
    } else {
      auto& content = parts.sections.at(random() % parts.sections.size()).second;
      content = change(std::move(content));
    }
    const Content file = join(parts);
    if (file.size() <= limit) {
      std::copy(file.begin(), file.end(), data);
      return file.size();
    }
  } catch (const std::exception&) {
  }
  return LLVMFuzzerMutate(data, size, limit);
}

#else

namespace {

using Random = std::mt19937_64;

void change_bytes(Content& content, Random& random) {
  const std::size_t at = content.empty() ? 0 : random() % content.size();
  switch (content.empty() ? 3 : random() % 7) {
    case 0: content[at] ^= static_cast<std::uint8_t>(1u << random() % 8); break;
    case 1: content[at] = static_cast<std::uint8_t>(random()); break;
    case 2: content[at] = random() % 2 ? 255 : 0; break;
    case 3: {
      Content more(1 + random() % 8);
      for (std::uint8_t& byte : more) byte = static_cast<std::uint8_t>(random());
      content.insert(content.begin() + static_cast<std::ptrdiff_t>(at), more.begin(), more.end());
      break;
    }
    case 4: {
      const std::size_t end = std::min(content.size(), at + 1 + random() % 8);
      content.erase(content.begin() + static_cast<std::ptrdiff_t>(at),
                    content.begin() + static_cast<std::ptrdiff_t>(end));
      break;
    }
    case 5: content.resize(at); break;
    default: {
      const std::size_t from = random() % content.size();
      const std::size_t count = std::min(content.size() - std::max(at, from), 1 + random() % 16);
      std::memmove(content.data() + at, content.data() + from, count);
    }
  }
}

// Another number, or another text, in the place of one of the metadata.
void change_metadata(std::string& text, Random& random) {
  static const char* const values[] = {
      "0", "1", "-1", "2", "7", "1.5", "1e308", "1e-320", "2147483647", "2147483648",
      "4611686018427387904", "99999999999999999999", "null", "true", "[]", "{}", "\"x\"",
      "\"none\"", "\"sign\"", "\"drqed\"", "\"opq\"", "\"rq\"", "\"sq8\"", "\"pca\"",
      "\"dpqed\"", "\"rabitq\"", "\"I8\"", "\"F32\"", "\"U8\"", "\"observation\""};
  std::vector<std::pair<std::size_t, std::size_t>> tokens;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t start = i;
    if (text[i] == '"') {
      i = text.find('"', i + 1);
      if (i == std::string::npos) break;
      tokens.emplace_back(start, i + 1);
    } else if (std::strchr("-0123456789", text[i]) != nullptr) {
      while (i + 1 < text.size() && std::strchr("+-.eE0123456789", text[i + 1]) != nullptr) ++i;
      tokens.emplace_back(start, i + 1);
    }
  }
  if (tokens.empty()) return;
  const auto [first, last] = tokens[random() % tokens.size()];
  text.replace(first, last - first, values[random() % (sizeof values / sizeof *values)]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: fuzz RUNS SEED FILE...\n");
    return 2;
  }
  std::vector<Parts> seeds;
  for (int i = 3; i < argc; ++i) {
    const Content data = dpqed::read_file(argv[i]);
    seeds.push_back(split({data.data(), data.size()}));
    if (!use({data.data(), data.size()})) {
      std::fprintf(stderr, "%s: is no map\n", argv[i]);
      return 1;
    }
  }
  const long runs = std::atol(argv[1]), seed = std::atol(argv[2]);
  long read = 0;
  for (long run = 0; run < runs; ++run) {
    Random random(static_cast<std::uint64_t>(seed) << 32 | static_cast<std::uint64_t>(run));
    Parts parts = seeds[random() % seeds.size()];
    const std::size_t which = random() % (parts.sections.size() + 4);
    for (std::size_t k = 0; k < 1 + random() % 4; ++k) {
      if (which < parts.sections.size()) {
        change_bytes(parts.sections[which].second, random);
      } else {
        change_metadata(parts.metadata, random);
      }
    }
    Content file = join(parts);
    if (random() % 20 == 0) change_bytes(file, random);
    read += use({file.data(), file.size()});
  }
  std::printf("%ld of %ld changed files are maps\n", read, runs);
  return 0;
}

#endif
