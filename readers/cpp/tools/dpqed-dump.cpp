// dpqed-dump [--codec_file PATH] [--no_descriptors] MAP.dpqed OUTPUT.safetensors: all that a map
// holds, as plain arrays (dump.hpp).

#include <cstdio>
#include <string>
#include <vector>

#include "dump.hpp"

namespace {

void write(const std::string& path, const std::string& data) {
  const std::string temporary = path + ".tmp";  // a reader sees all of the file or none
  std::FILE* const file = std::fopen(temporary.c_str(), "wb");
  bool good = file != nullptr;
  good = good && std::fwrite(data.data(), 1, data.size(), file) == data.size();
  good = (file == nullptr || std::fclose(file) == 0) && good;
  if (!good || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw dpqed::Error(path + ": cannot be written");
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool with_descriptors = true, good = true;
  std::string codec_file;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--no_descriptors") {
      with_descriptors = false;
    } else if (word == "--codec_file" && i + 1 < argc) {
      codec_file = argv[++i];
    } else if (word.rfind("--", 0) == 0) {
      good = false;
    } else {
      paths.push_back(word);
    }
  }
  if (!good || paths.size() != 2) {
    std::fprintf(stderr,
                 "usage: dpqed-dump [--codec_file PATH] [--no_descriptors] MAP.dpqed "
                 "OUTPUT.safetensors\n");
    return 2;
  }
  try {
    write(paths[1], dpqed::dump(dpqed::read_map(paths[0], codec_file), with_descriptors));
    return 0;
  } catch (const dpqed::Error& error) {
    std::fprintf(stderr, "dpqed-dump: error: %s\n", error.what());
    return 2;
  }
}
