// For the tests in Python: reads files from standard input, each after its size (64 bits), and
// writes a line for each: "refused: WHY", or "read" and a JSON object with the SHA-256 of each
// array of its dump.

#include <cstdio>
#include <string>
#include <vector>

#include "../tools/dump.hpp"

int main() {
  std::uint8_t head[8];
  while (std::fread(head, 1, 8, stdin) == 8) {
    std::uint64_t size = 0;
    for (int i = 7; i >= 0; --i) size = size << 8 | head[i];
    std::vector<std::uint8_t> data(size);
    if (size > 0 && std::fread(data.data(), 1, size, stdin) != size) return 1;
    try {
      const dpqed::Map map = dpqed::parse_map({data.data(), data.size()});
      const std::string dump = dpqed::dump(map, map.local.codec->name != "rabitq");
      const dpqed::Safetensors arrays = dpqed::read_safetensors(
          {reinterpret_cast<const std::uint8_t*>(dump.data()), dump.size()});
      std::string line;
      for (const auto& [name, array] : arrays.tensors) {
        dpqed::Sha256 digest;
        if (array.bytes.size > 0) digest.update(array.bytes.data, array.bytes.size);
        line += (line.empty() ? "" : ", ") + ("\"" + name + "\": \"" + digest.hex() + "\"");
      }
      for (const auto& [name, text] : arrays.metadata) {
        line += ", \"" + name + "\": " + dpqed::json_quote(text);
      }
      std::printf("read {%s}\n", line.c_str());
    } catch (const dpqed::Error& error) {
      std::printf("refused: %s\n", error.what());
    }
  }
  return 0;
}
