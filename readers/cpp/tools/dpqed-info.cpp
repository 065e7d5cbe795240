// dpqed-info [--json] [--codec_file PATH] MAP.dpqed: what is in a map file, all of it checked.

#include <cstdio>
#include <string>

#include "info.hpp"

int main(int argc, char** argv) {
  bool json = false;
  std::string map, codec_file;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") {
      json = true;
    } else if (word == "--codec_file" && i + 1 < argc) {
      codec_file = argv[++i];
    } else if (map.empty() && word.rfind("--", 0) != 0) {
      map = word;
    } else {
      map.clear();
      break;
    }
  }
  if (map.empty()) {
    std::fprintf(stderr, "usage: dpqed-info [--json] [--codec_file PATH] MAP.dpqed\n");
    return 2;
  }
  try {
    const dpqed::Map read = dpqed::read_map(map, codec_file);
    const std::string text = json ? dpqed::info_json(read) + "\n" : dpqed::info_text(read);
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : 1;
  } catch (const dpqed::Error& error) {
    std::fprintf(stderr, "dpqed-info: error: %s\n", error.what());
    return 2;
  }
}
