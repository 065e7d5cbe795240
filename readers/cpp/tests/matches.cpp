// matches [--int8] MAP.dpqed QUERY.safetensors IMAGE...: a line for each mutual nearest neighbour of the
// query's `descriptors` (n, D) with each image of the map: image, query row, point, similarity.

#include <cstdio>
#include <cstring>

#include "dpqed/dpqed.hpp"

int main(int argc, char** argv) {
  const bool int8 = argc > 1 && std::strcmp(argv[1], "--int8") == 0;
  if (int8) --argc, ++argv;
  if (argc < 3) return 2;
  const dpqed::Map map = dpqed::read_map(argv[1]);
  const std::vector<std::uint8_t> data = dpqed::read_file(argv[2]);
  const dpqed::Safetensors query = dpqed::read_safetensors({data.data(), data.size()});
  const dpqed::Tensor& rows = query.tensors.at("descriptors");
  std::vector<float> descriptors(rows.bytes.size / 4);
  std::memcpy(descriptors.data(), rows.bytes.data, rows.bytes.size);
  for (int i = 3; i < argc; ++i) {
    const std::size_t image = std::strtoul(argv[i], nullptr, 10);
    const std::size_t n = rows.shape[0], dim = map.local.codec->dim;
    const std::vector<dpqed::Match> found =
        int8 ? dpqed::match_image(map, image, dpqed::to_int8(descriptors.data(), n, dim))
             : dpqed::match_image(map, image, descriptors.data(), n);
    for (const dpqed::Match& m : found) {
      std::printf("%zu %zu %zu %.9g\n", image, m.query, m.row, m.similarity);
    }
  }
}
