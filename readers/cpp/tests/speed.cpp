// speed MAP.dpqed REPETITIONS: in CPU time of one thread, milliseconds to load the map and to make
// the codec's table, and million codes a second decoded to floats, into one large array and into
// blocks that stay in the cache, and to int8; a line a repetition.

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "dpqed/dpqed.hpp"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto seconds = [](std::clock_t since) {
    return static_cast<double>(std::clock() - since) / CLOCKS_PER_SEC;
  };
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    std::clock_t start = std::clock();
    const dpqed::Map map = dpqed::read_map(argv[1]);
    const double load = seconds(start);
    const dpqed::Codec& codec = *map.local.codec;
    std::vector<float> rows(map.local.rows * codec.dim), one(codec.dim);
    start = std::clock();
    codec.decode(map.local.codes.data(), 1, one.data());  // makes the codec's table
    const double table = seconds(start);
    codec.decode(map.local.codes.data(), map.local.rows, rows.data());
    const int passes = 8;
    start = std::clock();
    for (int k = 0; k < passes; ++k) {
      codec.decode(map.local.codes.data(), map.local.rows, rows.data());
    }
    const double large = seconds(start) / passes;
    const std::size_t block = 64;
    start = std::clock();
    for (int k = 0; k < passes; ++k) {
      for (std::size_t first = 0; first < map.local.rows; first += block) {
        codec.decode(map.local.codes.data() + first * codec.code_size,
                     std::min(block, map.local.rows - first), rows.data());
      }
    }
    const double small = seconds(start) / passes;
    std::vector<std::int8_t> narrow(map.local.rows * codec.dim);
    std::vector<float> scales(map.local.rows);
    codec.decode_int8(map.local.codes.data(), 1, narrow.data(), scales.data());
    start = std::clock();
    for (int k = 0; k < passes; ++k) {
      codec.decode_int8(map.local.codes.data(), map.local.rows, narrow.data(), scales.data());
    }
    const double int8 = seconds(start) / passes;
    const double million = static_cast<double>(map.local.rows) / 1e6;
    std::printf("%.3f %.3f %.3f %.3f %.3f\n", 1e3 * load, 1e3 * table, million / large,
                million / small, million / int8);
  }
}
